"""Read weights and tokenizer through Transformers; what is wrong with them becomes a one-line error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from normprobe.errors import NormprobeError


@dataclass(frozen=True)
class Pretrained:
    """A model directory or hub id, and how to read it.

    offline: no request to a hub, only directories and the local cache.
    trust_remote_code: run code that a checkpoint ships.
    """

    location: str
    revision: str | None = None
    offline: bool = False
    trust_remote_code: bool = False

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "pretrained_model_name_or_path": self.location,
            "revision": self.revision,
            "local_files_only": self.offline,
            "trust_remote_code": self.trust_remote_code,
        }

    @property
    def _is_directory(self) -> bool:
        return Path(self.location).is_dir()

    def model(self, dtype: torch.dtype, attentions: bool) -> PreTrainedModel:
        """The causal language model, on the CPU, in eval mode; `attentions`: eager, so that attention can be returned.

        Raises NormprobeError if there is no such model, its configuration is missing or of no known architecture, it
        needs code of its own without `trust_remote_code`, or its safetensors are missing, corrupt or incomplete.
        """
        if self._is_directory and not (Path(self.location) / "config.json").is_file():
            raise NormprobeError(
                f"expected a model directory, got {self.location} without config.json; "
                "give the folder that save_pretrained wrote"
            )
        known = (
            "a configuration that Transformers knows"
            if self._is_directory
            else "a bundled model (tiny-thinker), a directory or a hub id"
        )
        with self._one_line(known):
            config = AutoConfig.from_pretrained(**self._arguments)
        remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
        if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not remote:
            raise NormprobeError(
                f"expected a causal language model, got architecture {config.model_type!r} in {self.location}; "
                "use a decoder such as Qwen3"
            )
        with self._one_line("safetensors that fit the configuration"):
            # Never pickled weights. The report, because weights that are missing are silently replaced by random ones.
            model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
                **self._arguments,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation="eager" if attentions else None,
            )
        if missing := sorted(report["missing_keys"]):
            raise NormprobeError(
                f"expected weights for every parameter in {self.location}, got none for {missing[0]} "
                f"and {len(missing) - 1} more; copy the checkpoint again"
            )
        return model.eval()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer saved with the weights. Raises NormprobeError if there is none or it cannot be read."""
        # Without files Transformers makes up an empty tokenizer of the model's kind.
        if self._is_directory and not [
            file for name in ("tokenizer*", "vocab*") for file in Path(self.location).glob(name)
        ]:
            raise NormprobeError(
                f"expected a tokenizer with the weights, got none in {self.location}; "
                "save it there with save_pretrained"
            )
        with self._one_line("a tokenizer with the weights"):
            return AutoTokenizer.from_pretrained(**self._arguments)

    @contextmanager
    def _one_line(self, expected: str) -> Iterator[None]:
        """Turn whatever Transformers raises (also bare Exceptions, from tokenizers) into a one-line NormprobeError."""
        try:
            yield
        except Exception as cause:
            where, text = self.location, " ".join(str(cause).split())
            reason = text.partition(". ")[0][:200] or type(cause).__name__
            if "trust_remote_code" in text:
                expected = "a model that runs on Transformers' own code"
                got = f"{where} with code of its own; read that code, then pass trust_remote_code=True"
            elif isinstance(cause, SafetensorError):
                got = f"a corrupt or truncated file in {where} ({reason}); copy it again"
            elif self.offline and not self._is_directory:
                got = f"{where!r}, which is not in the local cache; check the name, or go online"
            else:
                got = f"{where!r} ({reason}); check the name and the files"
            raise NormprobeError(f"expected {expected}, got {got}") from cause
