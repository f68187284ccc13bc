"""A run directory: a manifest, the settings that replay it, and stages that are complete or `*.partial`.

A stage is a folder. It is filled under the name `<stage>.partial/` and renamed when done, so a folder without the
suffix is always whole. `stage.json` inside says what it was made from. The manifest holds the key that every stage
should have now; a folder of another key counts as absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import atomic_write_json, atomic_write_text, make_directory, refusing_disk_errors
from normprobe.runs.environment import environment
from normprobe.runs.untrusted import read_json

SCHEMA = 2
"""Version of the run directory's format; a directory of another one is refused."""


@dataclass(frozen=True)
class StageLabel:
    """What a stage is made from: its version, the settings it reads, and the keys of the stages it reads."""

    name: str
    version: int
    settings: Mapping[str, Any]
    reads: Mapping[str, str]

    @property
    def key(self) -> str:
        """sha256 (hexadecimal) of all of it: two stages of one key hold the same."""
        return config_hash(asdict(self))


@dataclass(frozen=True)
class Run:
    """A run directory at `path`. `Run.open` makes or continues one, `Run.load` reads one."""

    path: Path

    @classmethod
    def open(
        cls,
        path: str | Path,
        resolved: Mapping[str, Any],
        *,
        given: Mapping[str, Any] | None = None,
        stages: Mapping[str, str] | None = None,
    ) -> Run:
        """Create the directory, or continue the run in it, and record the settings.

        `resolved` holds every setting: it goes to config.yaml, which replays the run, and to manifest.json with what
        was `given` to get there, the key that each of `stages` should have, and the environment. Values must be what
        JSON can hold.

        Raises NormprobeError if the directory cannot be written, or its manifest is damaged or of another schema.
        """
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise NormprobeError(f"expected a run directory, got the file {run.path}; name another directory")
        identities = run.manifest()["identities"] if (run.path / "manifest.json").exists() else {}
        settings = json.loads(_canonical(resolved))
        with refusing_disk_errors(run.path):
            make_directory(run.path)
            atomic_write_json(
                run.path / "manifest.json",
                {
                    "schema": SCHEMA,
                    "written": datetime.now(UTC).isoformat(timespec="seconds"),
                    "arguments": {"given": json.loads(_canonical(given or {})), "resolved": settings},
                    "seed": settings.get("seed"),
                    "stages": dict(stages or {}),
                    "identities": identities,
                    "environment": environment(),
                },
            )
            atomic_write_text(run.path / "config.yaml", yaml.safe_dump(dict(resolved), sort_keys=False))
        return run

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """The run in an existing directory. Raises NormprobeError if its manifest cannot be read."""
        run = cls(Path(path))
        run.manifest()
        return run

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the directory for the block; the operating system lets go of it when the process ends, however it ends.

        The file `.lock` in it says who holds it: process, host, command, since when.
        Raises NormprobeError that names the holder if another process holds it, or if it cannot be written.
        """
        with refusing_disk_errors(self.path):
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "a process that is just starting"
                raise NormprobeError(
                    f"expected {self.path} to be free, got a directory held by {holder}; "
                    "wait for it, stop it, or name another directory"
                ) from error
            file.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
            file.write(f"process {os.getpid()} on {socket.gethostname()} ({command}) since {since}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def manifest(self) -> dict[str, Any]:
        """The content of manifest.json. Raises NormprobeError if missing, damaged or of another schema."""
        manifest = _read_versioned(self.path / "manifest.json", "a run directory")
        if not isinstance(manifest.get("identities"), dict) or not isinstance(manifest.get("stages"), dict):
            raise _corrupt(self.path / "manifest.json")
        return manifest

    def identify(self, **identities: Mapping[str, Any]) -> None:
        """Record in the manifest what was run, such as `run.identify(model=opened.identity.to_dict())`."""
        self._record("identities", identities)

    def expect(self, stages: Mapping[str, str]) -> None:
        """Record in the manifest the key that each of these stages should have now."""
        self._record("stages", stages)

    def _record(self, part: str, entries: Mapping[str, Any]) -> None:
        manifest = self.manifest()
        manifest[part].update(entries)
        with refusing_disk_errors(self.path):
            atomic_write_json(self.path / "manifest.json", manifest)

    def label(self, name: str) -> StageLabel | None:
        """What the finished stage `name` was made from, whatever it should be now; None if it is missing.

        Raises NormprobeError if the stage's folder is there without a readable stage.json.
        """
        folder = self.path / name
        return read_label(folder) if folder.exists() else None

    def resumes(self, label: StageLabel) -> bool:
        """Whether an unfinished stage with exactly this label is there."""
        return _key_or_none(self.path / f"{label.name}.partial") == label.key

    def rate(self, name: str) -> float | None:
        """Work per second of the finished stage `name`; None if nobody measured it."""
        if self.label(name) is None:
            return None
        content = _read_versioned(self.path / name / "stage.json", "a stage of a run")
        work, seconds = content.get("work"), content.get("seconds")
        if not all(isinstance(value, int | float | None) for value in (work, seconds)):
            raise _corrupt(self.path / name / "stage.json")
        return work / seconds if work and seconds else None

    def is_current(self, name: str) -> bool:
        """Whether stage `name` is finished and has the key that the manifest expects.

        In a folder of tables without a manifest, every stage that is there counts.
        """
        if not (self.path / "manifest.json").exists():
            return (self.path / name).is_dir()
        label = self.label(name)
        return label is not None and label.key == self.manifest()["stages"].get(name)

    @contextmanager
    def stage(self, label: StageLabel, work: float | None = None) -> Iterator[Path]:
        """Yield the folder `<name>.partial/` to fill; it becomes `<name>/` when the block ends without exception.

        After an exception or a kill the partial folder stays. The next call with the same label yields it as it is,
        so the block can skip the files that are there (write those with `atomic_write`); with another label it is
        emptied first. A finished stage is replaced only at the end. The manifest expects the new key from then on.
        `work` says how much there is to do, in any unit: `rate` reads from it how fast the stage was.

        Raises NormprobeError on a full disk or missing permission, wherever in the block it happens.
        """
        final, partial, replaced = (self.path / f"{label.name}{end}" for end in ("", ".partial", ".replaced"))
        self.label(label.name)  # a folder of that name which is not a stage is not ours to replace
        content = json.loads(_canonical({"schema": SCHEMA, **asdict(label), "key": label.key}))
        with refusing_disk_errors(self.path):
            shutil.rmtree(replaced, ignore_errors=True)
            resumed = partial.exists()
            if resumed and _key_or_none(partial) != label.key:
                shutil.rmtree(partial)
                resumed = False
            partial.mkdir(parents=True, exist_ok=True)
            content |= {"package": metadata.version("normprobe"), "work": work, "seconds": None}
            atomic_write_json(partial / "stage.json", content)
            start = time.monotonic()
            yield partial
            if not resumed:  # else nobody knows how long the first part took
                content["seconds"] = time.monotonic() - start
                atomic_write_json(partial / "stage.json", content)
            if final.exists():
                final.replace(replaced)
            partial.replace(final)
            shutil.rmtree(replaced, ignore_errors=True)
            self.expect({label.name: label.key})

    def __getitem__(self, name: str) -> Path:
        """The folder of a stage. Raises NormprobeError if it is missing, unfinished, out of date or damaged."""
        folder = self.path / name
        if not self.is_current(name):
            state = "none"
            if folder.exists():
                state = "one of other settings"
            elif (self.path / f"{name}.partial").exists():
                state = "an unfinished one"
            raise NormprobeError(
                f"expected the finished stage '{name}' in {self.path}, got {state}; "
                f"finish it with {resuming(self.path)}"
            )
        return folder


def resuming(path: Path) -> str:
    """The command that finishes the run in a directory: without its settings it would be another run."""
    settings = path / "config.yaml"
    replayed = f" --config {shlex.quote(str(settings))}" if settings.is_file() else ""
    return f"normprobe verify{replayed} --out {shlex.quote(str(path))}"


def read_label(folder: Path) -> StageLabel:
    """What a stage's folder, finished or not, is made from. Raises NormprobeError if its stage.json is unreadable."""
    content = _read_versioned(folder / "stage.json", "a stage of a run")
    try:
        return StageLabel(content["name"], content["version"], content["settings"], content["reads"])
    except KeyError as error:
        raise _corrupt(folder / "stage.json") from error


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 (hexadecimal) of the configuration's canonical JSON: key order is no matter, tuples are lists."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _key_or_none(folder: Path) -> str | None:
    try:
        return read_json(folder / "stage.json")["key"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_versioned(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except OSError as error:
        raise NormprobeError(
            f"expected {kind}, got {path.parent} without a readable {path.name} ({error.strerror}); "
            "name another directory"
        ) from error
    except ValueError as error:
        raise _corrupt(path) from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise _corrupt(path)
    if content["schema"] != SCHEMA:
        how = "upgrade normprobe" if content["schema"] > SCHEMA else "make the run again"
        raise NormprobeError(
            f"expected a run of schema {SCHEMA} in {path}, got {content['schema']}; {how} or name another directory"
        )
    return content


def _corrupt(path: Path) -> NormprobeError:
    return NormprobeError(
        f"expected a {path.name} written by normprobe, got a damaged one at {path}; "
        f"delete {path.parent} to run it again"
    )
