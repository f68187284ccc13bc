"""Which engine writes a model's responses: `--engine`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from normprobe.engines.base import Engine
from normprobe.engines.hf import HfEngine
from normprobe.model_settings import ModelSettings
from normprobe.models.model import OpenModel


@contextmanager
def engine_of(opened: OpenModel, settings: ModelSettings) -> Iterator[Engine]:
    """The engine that the settings choose, with the model that they opened, for as long as the block lasts.

    Raises NormprobeError for an engine that is not installed, and for a model that the engine cannot hold.
    """
    settings.check_engine()
    if settings.engine == "hf":
        yield HfEngine(opened)
        return
    from normprobe.engines.vllm.opening import vllm_engine

    with vllm_engine(opened, settings) as engine:
        yield engine
