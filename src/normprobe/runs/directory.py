"""A run directory: a manifest, the arguments that replay it, and stages that are complete or `*.partial`.

A stage is a folder. It is filled under the name `<stage>.partial/` and renamed when done, so a folder without
the suffix is always whole. `stage.json` inside holds the stage's configuration; its hash decides whether a stage
has to be run again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from normprobe.errors import NormprobeError
from normprobe.runs.environment import environment
from normprobe.runs.files import atomic_write_json, atomic_write_text, refusing_disk_errors
from normprobe.runs.lock import hold

SCHEMA = 1
"""Version of the run directory's format; a directory with a higher number is refused."""


@dataclass(frozen=True)
class Run:
    """A run directory at `path`. `Run.open` makes or continues one, `Run.load` reads one."""

    path: Path

    @classmethod
    def open(
        cls, path: str | Path, config: Mapping[str, Any], *, resolved: Mapping[str, Any] | None = None
    ) -> Run:
        """Create the directory, or continue the run in it, and record the arguments.

        `config` is what the user gave: it goes to config.yaml, which replays the run (`read_config`).
        `resolved` is the same with all defaults filled in. Both go to manifest.json, with the environment.
        Values must be what JSON can hold.

        Raises NormprobeError if the directory cannot be written, or its manifest is damaged or of a newer schema.
        """
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise NormprobeError(f"expected a run directory, got the file {run.path}; name another directory")
        identities = {}
        if (run.path / "manifest.json").exists():
            identities = run.manifest()["identities"]
        given = json.loads(_canonical(config))
        full = given if resolved is None else json.loads(_canonical(resolved))
        with refusing_disk_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            atomic_write_json(
                run.path / "manifest.json",
                {
                    "schema": SCHEMA,
                    "written": datetime.now(UTC).isoformat(timespec="seconds"),
                    "arguments": {"given": given, "resolved": full},
                    "seed": full.get("seed"),
                    "identities": identities,
                    "environment": environment(),
                },
            )
            atomic_write_text(run.path / "config.yaml", yaml.safe_dump(given))
        return run

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """The run in an existing directory. Raises NormprobeError if its manifest cannot be read."""
        run = cls(Path(path))
        run.manifest()
        return run

    def hold(self) -> AbstractContextManager[None]:
        """Hold the directory for a `with` block; see `runs.lock.hold`."""
        return hold(self.path)

    def manifest(self) -> dict[str, Any]:
        """The content of manifest.json. Raises NormprobeError if missing, damaged or of a newer schema."""
        manifest = _read_versioned(self.path / "manifest.json", "a run directory")
        if not isinstance(manifest.get("identities"), dict):
            raise NormprobeError(_corrupt(self.path / "manifest.json"))
        return manifest

    def identify(self, **identities: Mapping[str, Any]) -> None:
        """Record in the manifest what was run, such as `run.identify(model=opened.identity.to_dict())`."""
        manifest = self.manifest()
        manifest["identities"].update(identities)
        with refusing_disk_errors(self.path):
            atomic_write_json(self.path / "manifest.json", manifest)

    def stage_complete(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether stage `name` is finished and was made with exactly this configuration.

        Raises NormprobeError if the stage's folder is there without a readable stage.json.
        """
        folder = self.path / name
        if not folder.exists():
            return False
        return _read_versioned(folder / "stage.json", "a stage of a run").get("hash") == config_hash(config)

    @contextmanager
    def stage(self, name: str, config: Mapping[str, Any]) -> Iterator[Path]:
        """Yield the folder `<name>.partial/` to fill; it becomes `<name>/` when the block ends without exception.

        After an exception or a kill the partial folder stays. The next call with the same configuration yields
        it as it is, so the block can skip the files that are there (write those with `atomic_write`); with
        another configuration it is emptied first. A finished stage of another configuration is replaced only
        at the end.

        Raises NormprobeError on a full disk or missing permission, wherever in the block it happens.
        """
        final, partial, replaced = (self.path / f"{name}{suffix}" for suffix in ("", ".partial", ".replaced"))
        self.stage_complete(name, config)  # a folder of that name which is not a stage is not ours to replace
        label = {"schema": SCHEMA, "config": json.loads(_canonical(config)), "hash": config_hash(config)}
        with refusing_disk_errors(self.path):
            shutil.rmtree(replaced, ignore_errors=True)
            if partial.exists() and _label_or_none(partial) != label:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            atomic_write_json(partial / "stage.json", label)
            yield partial
            if final.exists():
                final.replace(replaced)
            partial.replace(final)
            shutil.rmtree(replaced, ignore_errors=True)

    def __getitem__(self, name: str) -> Path:
        """The folder of a complete stage. Raises NormprobeError if it is missing, unfinished or damaged."""
        folder = self.path / name
        if not folder.exists():
            state = "an unfinished one" if (self.path / f"{name}.partial").exists() else "none"
            raise NormprobeError(
                f"expected the finished stage '{name}' in {self.path}, got {state}; "
                f"run normprobe verify --out {self.path}"
            )
        _read_versioned(folder / "stage.json", "a stage of a run")
        return folder


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 (hexadecimal) of the configuration's canonical JSON: key order is no matter, tuples are lists."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()


def read_config(path: str | Path, known: Collection[str]) -> dict[str, Any]:
    """The arguments in a config.yaml. Raises NormprobeError if unreadable or with a key not in `known`."""
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NormprobeError(
            f"expected a config.yaml of a run, got {path} ({_first_line(error)}); "
            "name the config.yaml in a run directory"
        ) from error
    if not isinstance(config, dict):
        raise NormprobeError(
            f"expected arguments as 'key: value' in {path}, got a {type(config).__name__}; write one key per line"
        )
    unknown = sorted(str(key) for key in config if key not in known)
    if unknown:
        raise NormprobeError(
            f"expected only the keys {', '.join(sorted(known))} in {path}, "
            f"got {', '.join(unknown)}; remove or rename them"
        )
    return config


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _label_or_none(folder: Path) -> Any:
    try:
        return json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_versioned(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NormprobeError(
            f"expected {kind}, got {path.parent} without a readable {path.name} ({error.strerror}); "
            "name another directory"
        ) from error
    except ValueError as error:
        raise NormprobeError(_corrupt(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise NormprobeError(_corrupt(path))
    if content["schema"] > SCHEMA:
        raise NormprobeError(
            f"expected schema {SCHEMA} or older in {path}, got {content['schema']}; "
            "upgrade normprobe or name another directory"
        )
    return content


def _corrupt(path: Path) -> str:
    return (
        f"expected a {path.name} written by normprobe, got a damaged one at {path}; "
        f"delete {path.parent} to run it again"
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
