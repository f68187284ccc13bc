"""A section of a study's settings: a dataclass that refuses values of another type, and tells what it stands for."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_type_hints

from tyro.conf import arg

from normprobe.errors import NormprobeError

optional = functools.partial(arg, help_behavior_hint="")
"""Of an option without a value of its own (None), as `tyro.conf.arg`: its help tells what holds without it."""
_MAY_BE_ZERO = ("seed", "nulls", "trained", "retrained")


class Settings:
    """A dataclass that refuses a value of another type than its field, and a number that is not above zero."""

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, section: str = "") -> None:
        cls._prefix = f"{section}." if section else ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            self.check(field.name, getattr(self, field.name))

    @classmethod
    def check(cls, name: str, value: object) -> None:
        """Raises NormprobeError for a value of another type than the field's, or a number that is too low."""
        hint = _hints(cls)[name]
        if not _is(value, hint):
            raise NormprobeError(
                f"expected {cls._prefix}{name} as {_in_words(hint)}, got {value!r}; correct it"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
            least = "0 or more" if name in _MAY_BE_ZERO else "above 0"
            raise NormprobeError(f"expected {cls._prefix}{name} {least}, got {value}; correct it")

    def identity(self) -> dict[str, Any]:
        """What results depend on, as JSON can hold it: the values; for files, what they hold."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    """The fields' types; resolving their names takes a millisecond."""
    return get_type_hints(section)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their paths: ("saes.width", 512)."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type; truth values are no numbers."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is(value, part) for part in typing.get_args(hint))
    return type(value) is hint


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(typing.get_args(hint))
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    parts = typing.get_args(hint) or (hint,)
    return " or ".join(names.get(part, getattr(part, "__name__", str(part))) for part in parts)
