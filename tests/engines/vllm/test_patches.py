"""How the sources of vLLM's functions are found and compared; without vLLM."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from normprobe.engines.vllm.patches import attributes_of, digest_of, parameters_of, source_of, wrap
from normprobe.engines.vllm.symbols import SYMBOLS, Symbol, Use

SOURCE = '''
import functools

def plain(first, /, second=1, *rest, only: int = 2, **more): ...

class Runner:
    batch: list[int] = []

    @overload
    def run(self, one: int) -> int: ...

    @functools.cache
    async def run(self, one, *, option=None):
        """Text."""
        self.rows, one.other = option, self.known
        return one
'''


def source(tmp_path: Path, signature: str) -> str | None:
    (tmp_path / "package").mkdir(exist_ok=True)
    (tmp_path / "package" / "module.py").write_text(SOURCE, encoding="utf-8")
    return source_of(Symbol(Use.CALL, "here", "", signature), tmp_path)


def test_the_source_of_a_method_is_its_last_definition_without_decorators(tmp_path: Path) -> None:
    found = source(tmp_path, "package.module:Runner.run(self)")
    assert found is not None
    assert found.splitlines()[0] == "async def run(self, one, *, option=None):"
    assert found.splitlines()[-1] == "    return one"
    assert digest_of(found) != digest_of(found.replace("return one", "return two"))


def test_the_attributes_of_a_class_are_what_it_declares_defines_and_assigns(tmp_path: Path) -> None:
    found = source(tmp_path, "package.module:Runner()")
    assert found is not None
    assert attributes_of(found) == {"batch", "run", "rows"}


@pytest.mark.parametrize(
    "path", ["package.other:plain", "package.module:other", "package.module:Runner.other"]
)
def test_what_is_missing_has_no_source(tmp_path: Path, path: str) -> None:
    assert source(tmp_path, f"{path}()") is None


@pytest.mark.parametrize("function", [textwrap.wrap, inspect.signature, Path.write_text])
def test_parameters_are_those_of_pythons_own_signature(function: Callable[..., object]) -> None:
    expected = []
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not any(name.startswith("*") for name in expected):
            expected.append("*")
        expected.append({one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "") + one.name)
    text = textwrap.dedent(inspect.getsource(function))
    assert parameters_of(text) == ", ".join(expected)


def test_a_method_is_wrapped_once() -> None:
    class Counter:
        def add(self) -> int:
            """Add one."""
            return 1

    for _ in range(3):
        wrap(Counter, "add", lambda add, self: add(self) + 1)
    assert Counter().add() == 2
    assert Counter.add.__doc__ == "Add one."
    mine = Counter()
    wrap(mine, "add", lambda add: add() + 10)
    assert (mine.add(), Counter().add()) == (2, 2)  # wrapped on the class already


def test_every_symbol_is_listed_once_and_says_what_wraps_it() -> None:
    assert len({symbol.path for symbol in SYMBOLS}) == len(SYMBOLS)
    for symbol in SYMBOLS:
        wrapped = symbol.use in (Use.ENTRY, Use.EVERY_PROCESS, Use.SERVER)
        assert (":" in symbol.by) is wrapped
