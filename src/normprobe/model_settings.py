"""The settings of a study that say which model it is of, how it is opened, and how it thinks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from tyro.conf import arg

from normprobe.errors import NormprobeError
from normprobe.local_files import IN_MEMORY, fingerprint
from normprobe.problems import bundled
from normprobe.runs.untrusted import json_value
from normprobe.settings import Settings, optional
from normprobe.thinking_formats import ThinkingFormat, read_format

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu")


@dataclass(frozen=True)
class ModelSettings(Settings, section="model"):
    """Which model is opened, and how."""

    name: Annotated[str, arg(name="model", metavar="NAME")] = "tiny-thinker"
    """tiny-thinker, a directory (also of a PEFT adapter), a GGUF file, or a hub id"""
    revision: Annotated[str | None, optional(metavar="NAME")] = None
    """branch, tag or commit of a hub model"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """in which the model computes"""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """cpu, cuda, or auto (all GPUs, and the CPU and the disk for what they have no room for)"""
    offline: bool = False
    """never ask a hub"""
    trust_remote_code: bool = False
    """run code that comes with a model"""
    early: Annotated[str | None, optional(metavar="NAME")] = None
    """an early checkpoint of the model, as a control (tiny-thinker brings its own)"""
    engine: Literal["hf", "vllm"] = "hf"
    """what writes responses: Transformers, or vLLM (to be installed); states are always read by Transformers"""
    tensor_parallel_size: Annotated[int, arg(metavar="N")] = 1
    """devices that vLLM spreads the model over (with --engine vllm)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, several, number = self.device.partition(":")
        if kind not in DEVICES or (several and (kind == "auto" or not number.isdecimal())):
            raise NormprobeError(
                f"expected model.device as {', '.join(DEVICES)}, or one of several as cuda:1, got {self.device!r}; "
                "correct it"
            )

    @property
    def is_bundled(self) -> bool:
        return self.name in bundled.MODELS

    @property
    def is_in_memory(self) -> bool:
        """Whether no file holds the model."""
        return self.name.startswith(IN_MEMORY)

    @property
    def early_checkpoint(self) -> ModelSettings | None:
        """How the early checkpoint that serves as a control is opened: the given one, or tiny-thinker's own."""
        name = self.early or (bundled.MODELS[self.name].early if self.is_bundled else None)
        if name is None:
            return None
        return dataclasses.replace(
            self, name=name, revision=None, early=None, engine="hf"
        )  # it writes nothing

    def check_engine(self) -> None:
        """Raises NormprobeError if the engine is not installed here."""
        if self.engine == "vllm" and find_spec("vllm") is None:
            raise NormprobeError(
                "expected vLLM for --engine vllm, got none in this environment; pip install 'normprobe[vllm]' into "
                "one of its own (make .venv-vllm/.ready), or leave the engine at hf"
            )

    def identity(self) -> dict[str, Any]:
        """The weights, where and how they compute, and what writes responses with them."""
        weights = fingerprint(self.name, self.revision)
        identity = {"model": weights, "dtype": self.dtype, "device": self.device}
        return identity if self.engine == "hf" else identity | {"engine": self.engine}


@dataclass(frozen=True)
class ThinkingSettings(Settings, section="thinking"):
    """How the model marks its thought and is asked to think or not. By default its chat template tells."""

    format: Annotated[str | None, optional(name="thinking-format", metavar="NAME|FILE")] = None
    """a family of the table, 'elicited' (by an instruction, for models without marks), or a YAML file"""
    start: Annotated[str | None, optional(name="think-start", metavar="TEXT")] = None
    """the text that opens a thought (with --think-end)"""
    end: Annotated[str | None, optional(name="think-end", metavar="TEXT")] = None
    """the text that closes a thought (with --think-start)"""
    system_prompt: Annotated[str | None, optional(metavar="TEXT")] = None
    """system text, in every mode"""
    chat_template_kwargs: Annotated[str | None, optional(metavar="JSON")] = None
    """keywords of the chat template, in every mode, such as '{"reasoning_effort": "high"}'"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.given  # noqa: B018  checked here, before a run begins

    @property
    def given(self) -> Mapping[str, Any] | None:
        """What `open_model` takes as `thinking`. Raises NormprobeError for JSON, or a file, that is none."""
        values: dict[str, Any] = {} if self.format is None else dict(read_format(self.format))
        if (self.start is None) != (self.end is None):
            raise NormprobeError(
                "expected --think-start and --think-end, got one of them; give both, or none"
            )
        texts = {"open": self.start, "close": self.end, "system": self.system_prompt}
        values |= {name: text for name, text in texts.items() if text is not None}
        if self.chat_template_kwargs is not None:
            try:
                values["kwargs"] = json_value(self.chat_template_kwargs)
            except ValueError as error:
                raise NormprobeError(
                    f"expected thinking.chat_template_kwargs as JSON, got {self.chat_template_kwargs!r}; correct it"
                ) from error
        ThinkingFormat.of(values)
        return values or None

    def identity(self) -> dict[str, Any]:
        return {"given": self.given}
