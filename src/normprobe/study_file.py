"""Reads a study from YAML and from nested mappings."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from normprobe.config import Study
from normprobe.errors import NormprobeError
from normprobe.runs.untrusted import read_yaml
from normprobe.settings import Settings, flat

_Tree = TypeVar("_Tree", bound=Settings)


def changed(study: Study, values: Mapping[str, Any], where: str = "the settings") -> Study:
    """The study with the values of a nested mapping, such as `{"saes": {"width": 256}}`. `where` names it in errors.

    Raises NormprobeError for a key that does not exist (naming the nearest one) and for a value that a field refuses.
    """
    return _changed(study, values, "", where)


def _changed(tree: _Tree, values: Mapping[str, Any], prefix: str, where: str) -> _Tree:
    names = [f.name for f in dataclasses.fields(tree)]  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for name, value in values.items():
        if name not in names:
            raise NormprobeError(
                f"expected only settings of a study in {where}, got {prefix}{name}; "
                f"did you mean {_nearest_path(f'{prefix}{name}')}?"
            )
        section = getattr(tree, name)
        if isinstance(section, Settings):
            if not isinstance(value, Mapping):
                raise NormprobeError(
                    f"expected the section {name} of {where} as lines 'key: value', got {value!r}; indent its keys"
                )
            value = _changed(section, value, f"{prefix}{name}.", where)
        tree.check(name, value)
        new[name] = value
    return dataclasses.replace(tree, **new)  # type: ignore[type-var]


def read_study(path: str | Path) -> Study:
    """The study in a YAML file, defaults filled in: a run's config.yaml, or one of sae_training/.

    Raises NormprobeError if the file is unreadable, or as `changed`, naming the file; and for a cache, since a study
    that comes from elsewhere must not write outside of its run.
    """
    try:
        values = read_yaml(Path(path))
    except (OSError, ValueError) as error:
        raise NormprobeError(
            f"expected a study in YAML, got {path} ({error}); "
            "name the config.yaml of a run, or a file of sae_training/"
        ) from error
    if not isinstance(values, Mapping):
        raise NormprobeError(
            f"expected settings as 'section: key: value' in {path}, got a {type(values).__name__}; "
            "write one key per line"
        )
    try:
        study = changed(Study(), values, str(path))
        if study.saes.cache is not None:
            raise NormprobeError(
                f"expected no saes.cache in {path}, a file that must not write outside of its run, "
                f"got {study.saes.cache!r}; take it out, and give --cache DIR"
            )
        return study
    except NormprobeError as error:
        line = str(error)
        raise NormprobeError(line if str(path) in line else f"{line} (in {path})") from None


def _nearest_path(path: str) -> str:
    """The path of the tree that is most like `path`, or whose last part is most like its last part."""

    path = path[-60:]  # comparing takes the product of both lengths

    def likeness(known: str) -> float:
        pairs = ((path, known), (path.rpartition(".")[2], known.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return max((known for known, _ in flat(dataclasses.asdict(Study()))), key=likeness)
