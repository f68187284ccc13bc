"""The Hugging Face engine: policies on the decoder blocks of a Transformers model, through hooks."""

from normprobe.engines.hf.engine import HfEngine
from normprobe.engines.hf.intervene import intervene
from normprobe.engines.hf.intervention import Intervention

__all__ = ["HfEngine", "Intervention", "intervene"]
