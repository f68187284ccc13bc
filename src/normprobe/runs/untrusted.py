"""JSON and YAML that anybody may have written: whatever is wrong with it is a ValueError, and its size is bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 64
"""Brackets within brackets. What walks a tree recursively ends at a thousand."""
LARGEST = 2**64
"""Magnitude of a whole number in a configuration: much larger ones are no float, and take long to print."""


def json_value(text: str, *, any_content: bool = False) -> Any:
    """The value of JSON text.

    Raises ValueError for what is no JSON or too deep, and unless `any_content`, for a number that is not finite or a
    whole one beyond `LARGEST`, and for text that Unicode does not have.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"brackets nested more than {DEEPEST} deep") from None
    return _bounded(value, any_content)


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises OSError if it cannot be read, ValueError as `json_value`."""
    return json_value(path.read_text(encoding="utf-8"))


def read_yaml(path: Path) -> Any:
    """The value of a YAML file, plain types only and no aliases.

    Raises OSError if it cannot be read, ValueError for what is no YAML, has an alias, is too deep, or has a value that
    its type does not have (such as a date in month 13).
    """
    text = path.read_text(encoding="utf-8")
    try:
        value = yaml.load(text, _Plain)
    except RecursionError:
        raise ValueError(f"values nested more than {DEEPEST} deep") from None
    # What PyYAML's constructors raise for a value that they cannot read has no base class in common.
    except Exception as error:
        raise ValueError(" ".join(str(error).split())) from error
    return _bounded(value)


class _Plain(yaml.SafeLoader):
    """Without aliases, of which a few lines stand for billions of values and one may stand for itself; and without deep
    brackets, which take the square of their number."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.YAMLError(f"brackets nested more than {DEEPEST} deep")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, as in *name, which is not followed here: write its value out")
        return super().compose_node(parent, index)


def _bounded(value: Any, any_content: bool = False) -> Any:
    """The value as it is. Raises ValueError if it is too deep, or holds what `json_value` refuses."""
    level = [value]
    for _ in range(DEEPEST):
        for item in () if any_content else level:
            _check_content(item)
        level = [part for item in level for part in _parts(item)]
        if not level:
            return value
    raise ValueError(f"brackets nested more than {DEEPEST} deep")


def _parts(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return [*item, *item.values()]
    return item if isinstance(item, list | tuple | set) else ()


def _check_content(item: Any) -> None:
    if isinstance(item, str):
        item.encode("utf-8")  # half of a surrogate pair is a UnicodeEncodeError, which is a ValueError
    elif (isinstance(item, int) and abs(item) > LARGEST) or (
        isinstance(item, float) and not math.isfinite(item)
    ):
        raise ValueError(f"a number that is not finite or beyond {LARGEST:.1g}")
