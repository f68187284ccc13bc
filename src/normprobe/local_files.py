"""Models and dictionaries that lie on this machine: where they are, and what tells one from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from normprobe.problems.testbed import bundled
from normprobe.runs.atomic import refusing_disk_errors

_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".py")


def local_folder(name: str) -> Path | None:
    """The folder of a bundled model or of a path; None for a name of the hub."""
    folder = bundled.path(name) if name in bundled.NAMES else Path(name).expanduser()
    return folder if folder.is_dir() else None


def fingerprint(name: str, revision: str | None = None) -> str:
    """What tells one model, or folder of dictionaries, from another: a hash of a folder's files, or the hub's name."""
    folder = local_folder(name)
    if folder is None:
        return f"{name}@{revision}"
    digest = hashlib.sha256(name.partition(":")[2].encode() if name in bundled.NAMES else b"")
    for file in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES):
        digest.update(str(file.relative_to(folder)).encode())
        with refusing_disk_errors(file), file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
