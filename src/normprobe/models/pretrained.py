"""Read weights and tokenizer through Transformers; what is wrong with them becomes a one-line error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file

from normprobe.errors import NormprobeError
from normprobe.local_files import hub_origin
from normprobe.models.adapters import merge, needs_peft
from normprobe.models.architectures import dissect
from normprobe.models.gguf_files import gguf_arguments, needs_gguf, plain
from normprobe.models.placement import AUTO, spread
from normprobe.models.requirements import check_configuration, check_shards, check_sizes

NOT_PICKLED = "safetensors that fit the configuration"


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint and how to read it: a model directory, a hub id, or a GGUF file; perhaps changed by an adapter.

    location: the directory, or the hub id. gguf_file: a file's name in that directory.
    adapter: the directory of an adapter that is merged into these weights.
    tokenizer_folder: the directory of a tokenizer that takes the place of the weights' own, or the adapter's.
    offline: no request to a hub, only directories and the local cache.
    trust_remote_code: run code that a checkpoint ships.
    """

    location: str
    revision: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    gguf_file: str | None = None
    adapter: Path | None = None
    tokenizer_folder: Path | None = None

    @property
    def where(self) -> str:
        """The checkpoint as messages name it."""
        return self.location if self.gguf_file is None else str(Path(self.location) / self.gguf_file)

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "pretrained_model_name_or_path": self.location,
            "revision": self.revision,
            "local_files_only": self.offline,
            "trust_remote_code": self.trust_remote_code,
        } | ({} if self.gguf_file is None else {"gguf_file": self.gguf_file})

    @property
    def _is_directory(self) -> bool:
        return Path(self.location).is_dir()

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The configuration, checked.

        Raises NormprobeError if there is no such model, its configuration is missing or of no known architecture, it
        needs code of its own without `trust_remote_code`, a package is missing that reads it, or as
        `check_sizes`, `check_configuration` and, for its parts, `dissect` do.
        """
        if self.gguf_file is not None:
            needs_gguf(self.where)
        elif self._is_directory and not (Path(self.location) / "config.json").is_file():
            raise NormprobeError(
                f"expected a model directory, got {self.location} without config.json; "
                "give the folder that save_pretrained wrote"
            )
        if self.adapter is not None:
            needs_peft(self.adapter)
        known = (
            "a configuration that Transformers knows"
            if self._is_directory
            else "a bundled model, a directory or a hub id"
        )
        with self._one_line(known):
            if self.gguf_file is None:
                content, _ = PreTrainedConfig.get_config_dict(
                    self.location, revision=self.revision, local_files_only=self.offline
                )
                check_sizes(content, self.where)
            config = AutoConfig.from_pretrained(**self._arguments)
        check_configuration(config, self.where)
        if not hasattr(config, "auto_map"):
            # The parts without their weights: what cannot be measured is refused before these are read.
            with self._one_line("a configuration that fits its architecture"), torch.device("meta"):
                skeleton = AutoModelForCausalLM.from_config(config)
            dissect(skeleton)
        return config

    @property
    def commit(self) -> str | None:
        """The commit of a hub id, once its configuration was read; None for a directory or a file."""
        if self._is_directory:
            return None
        file = cached_file(self.location, CONFIG_NAME, revision=self.revision, local_files_only=True)
        origin = None if file is None else hub_origin(Path(file).parent)
        return None if origin is None else origin[1]

    def generation_config(self) -> GenerationConfig:
        """How the model asks to be decoded: its generation_config.json, else what its configuration has of it."""
        if self.gguf_file is None:
            arguments = self._arguments
            arguments.pop("trust_remote_code")
            try:
                return GenerationConfig.from_pretrained(
                    arguments.pop("pretrained_model_name_or_path"), **arguments
                )
            except OSError:  # there is none
                pass
        return GenerationConfig.from_model_config(self.config)

    def model(self, dtype: torch.dtype, device: str | torch.device) -> PreTrainedModel:
        """The causal language model in eval mode.

        device: "auto" spreads it over the GPUs and, what they have no room for, the CPU and the disk.
        Raises NormprobeError as `config` and `check_shards` do, or if its safetensors are missing, corrupt or
        incomplete.
        """
        config = self.config
        if self._is_directory and self.gguf_file is None:
            check_shards(Path(self.location), config)
        direct = device == AUTO and self.gguf_file is None and self.adapter is None
        with self._one_line("a GGUF file that fits its architecture" if self.gguf_file else NOT_PICKLED):
            # Never pickled weights. The report, because weights that are missing are silently replaced by random ones.
            model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
                **self._arguments,
                **(gguf_arguments(config) if self.gguf_file else {"use_safetensors": True}),
                dtype=dtype,
                output_loading_info=True,
                device_map=AUTO if direct else None,
            )
        if missing := sorted(report["missing_keys"]):
            raise NormprobeError(
                f"expected weights for every parameter in {self.where}, got none for {missing[0]} "
                f"and {len(missing) - 1} more; copy the checkpoint again"
            )
        if self.gguf_file is not None:
            model = plain(model)
        if self.adapter is not None:
            model = merge(model, self.adapter)
        if not direct:
            model = spread(model) if device == AUTO else model.to(device)  # type: ignore[arg-type]
        return model.eval()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer given apart, else that saved with the adapter, else with the weights.

        Raises NormprobeError if there is none or it cannot be read.
        """
        folder = self.tokenizer_folder or self.adapter
        own = None if folder is None else Pretrained(str(folder), offline=self.offline)
        if own is not None and own._has_tokenizer:
            return own.tokenizer()
        # Without files Transformers makes up an empty tokenizer of the model's kind.
        if self._is_directory and self.gguf_file is None and not self._has_tokenizer:
            raise NormprobeError(
                f"expected a tokenizer with the weights, got none in {self.location}; "
                "save it there with save_pretrained"
            )
        with self._one_line("a tokenizer with the weights"):
            return AutoTokenizer.from_pretrained(**self._arguments)

    @property
    def _has_tokenizer(self) -> bool:
        return any(any(Path(self.location).glob(name)) for name in ("tokenizer*", "vocab*"))

    @contextmanager
    def _one_line(self, expected: str) -> Iterator[None]:
        """Turn whatever Transformers raises (also bare Exceptions, from tokenizers) into a one-line NormprobeError."""
        try:
            yield
        except NormprobeError:
            raise
        except Exception as cause:
            where, text = self.where, " ".join(str(cause).split())
            reason = text.partition(". ")[0][:200] or type(cause).__name__
            if "trust_remote_code" in text:
                expected = "a model that runs on Transformers' own code"
                got = f"{where} with code of its own; read that code, then pass trust_remote_code=True"
            elif isinstance(cause, SafetensorError):
                got = f"a corrupt or truncated file in {where} ({reason}); copy it again"
            elif self.offline and not self._is_directory and "Repo id" not in text:
                got = f"{where!r}, which is no directory here and not in the local cache; check the name, or go online"
            else:
                got = f"{where!r} ({reason}); check the name and the files"
            raise NormprobeError(f"expected {expected}, got {got}") from cause
