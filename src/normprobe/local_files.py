"""Models and dictionaries that lie on this machine: where they are, and what tells one from another."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.gguf_header import sizes_of
from normprobe.problems import bundled
from normprobe.runs.atomic import sha256_of
from normprobe.runs.untrusted import read_json

ADAPTER = "adapter_config.json"
IN_MEMORY = "in-memory:"
"""What the name of a model begins with that no file holds: `normprobe.verify` was given it."""
_SUFFIXES = (".safetensors", ".gguf", ".json", ".jinja", ".txt", ".model", ".py")
_NAME = re.compile(r"(?!\.)[\w.+@-]{1,200}(?:/(?!\.)[\w.+@-]{1,200}){0,9}", re.ASCII)
"""A branch, tag or commit: as a path it stays in its folder."""
_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)(--(?P<name>.+))?")


def local_path(name: str, revision: str | None = None) -> Path | None:
    """The folder of a bundled model or of a path, or a file in GGUF format; None for a name of the hub.

    Of a model's folder in the hub's cache (`models--Qwen--Qwen3-8B`) it is the snapshot of `revision` (a commit, branch
    or tag), else that of the branch main, else the only one. Raises NormprobeError if none of these is there.
    """
    path = bundled.find(name).folder if name in bundled.MODELS else Path(name).expanduser()
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if not path.is_dir():
        return None
    snapshots = path / "snapshots"
    if not snapshots.is_dir() or not _SNAPSHOT.fullmatch(path.name):
        return path
    wanted = revision or "main"
    if not _NAME.fullmatch(wanted):
        raise NormprobeError(f"expected a branch, tag or commit of {path}, got {wanted!r}; correct it")
    reference = path / "refs" / wanted
    commit = (
        reference.read_text(encoding="utf-8", errors="replace").strip() if reference.is_file() else wanted
    )
    if not _NAME.fullmatch(commit):
        raise NormprobeError(f"expected a commit in {reference}, got {commit!r}; download the model again")
    found = [folder for folder in sorted(snapshots.iterdir()) if folder.is_dir()]
    if (snapshots / commit).is_dir():
        return snapshots / commit
    if revision is None and len(found) == 1:
        return found[0]
    raise NormprobeError(
        f"expected a snapshot of {wanted} in {path}, got {', '.join(one.name for one in found) or 'none'}; "
        "name one of these folders, or download the model again"
    )


def hub_origin(path: Path) -> tuple[str, str] | None:
    """Hub id and commit of a snapshot folder in the hub's cache, such as models--Qwen--Qwen3-8B/snapshots/1a2b3c."""
    found = _SNAPSHOT.fullmatch(path.parent.parent.name)
    if path.parent.name != "snapshots" or found is None:
        return None
    return "/".join(part for part in (found["owner"], found["name"]) if part), path.name


def base_of(adapter: Path) -> tuple[str, str | None]:
    """The model that an adapter changes, as `open_model` takes it, and its revision.

    A path that is not there from here is looked for from the adapter's folder. Raises NormprobeError if the adapter's
    configuration cannot be read or names none.
    """
    file = adapter / ADAPTER
    with refusing_damage(f"the configuration of an adapter in {file}", "copy it again", OSError, ValueError):
        content = read_json(file)
    content = content if isinstance(content, dict) else {}
    name, revision = content.get("base_model_name_or_path"), content.get("revision")
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or not isinstance(revision, str | None)
        or not name
    ):
        raise NormprobeError(
            f"expected an adapter that names its base model in {file}, got none; "
            "write the base's folder or hub id as base_model_name_or_path"
        )
    near = adapter / name
    with refusing_damage(f"the base of an adapter in {file}", "write its folder or hub id", OSError):
        return (str(near) if not Path(name).exists() and near.exists() else name), revision


def configuration_of(name: str, revision: str | None = None) -> dict[str, Any] | None:
    """The content of a model's config.json, or of what a GGUF file tells of it (`sizes_of`); of an adapter, its base's.

    None where nothing of it is on this machine. Raises NormprobeError as `local_path`, `base_of` and `sizes_of` do, and
    ValueError for what is no JSON.
    """
    path = local_path(name, revision)
    if path is None:
        return None
    if path.is_file():
        return sizes_of(path)
    if path.parent == bundled.SMOL:
        return configuration_of(bundled.smollm2())
    if (path / ADAPTER).is_file():
        return configuration_of(*base_of(path))
    file = path / "config.json"
    content = read_json(file) if file.is_file() else None
    return content if isinstance(content, dict) else None


def dictionaries_folder(given: str) -> Path | None:
    """The folder of given dictionaries; None for those of a published release, RELEASE:ID with {layer} in it.

    Raises NormprobeError for what is neither.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    if "{layer}" not in given.partition(":")[2]:
        raise NormprobeError(
            f"expected a folder of dictionaries, or RELEASE:ID with {{layer}} in it, got {given!r}; "
            "correct it (such as llama_scope_r1_distill:l{layer}r_800m_slimpajama)"
        )
    return None


def fingerprint(name: str, revision: str | None = None) -> str:
    """What tells one model, or folder of dictionaries, from another: a hash of its files, or the hub's name.

    An adapter's also depends on its base, so that smol-thinker on a quantized base is another model.
    Raises NormprobeError as `local_path` and `base_of` do.
    """
    path = local_path(name, revision)
    if path is None:
        return f"{name}@{revision}"
    digest = hashlib.sha256(name.partition(":")[2].encode() if name in bundled.MODELS else b"")
    for file in sorted([path] if path.is_file() else path.rglob("*")):
        if not file.is_file() or (file.suffix not in _SUFFIXES and file.name != "ae.pt"):
            continue
        digest.update(str(file.relative_to(path)).encode())
        digest.update(bytes.fromhex(sha256_of(file)))
    if path.parent == bundled.SMOL:
        digest.update(fingerprint(bundled.smollm2()).encode())
    elif (path / ADAPTER).is_file():
        digest.update(fingerprint(*base_of(path)).encode())
    return digest.hexdigest()
