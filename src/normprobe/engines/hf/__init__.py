"""The Hugging Face engine: policies on the decoder blocks of a Transformers model, through hooks."""

from normprobe.engines.hf.events import Events, UntriggeredWarning
from normprobe.engines.hf.generating import Generated, generate
from normprobe.engines.hf.intervene import intervene
from normprobe.engines.hf.intervention import Intervention

__all__ = ["Events", "Generated", "Intervention", "UntriggeredWarning", "generate", "intervene"]
