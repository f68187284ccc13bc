"""Methods of vLLM are wrapped, once it is checked that what normprobe uses of it (symbols.py) is what was tested.

`check` runs when an engine with policies is configured, before any model is loaded: a function that is missing or takes
other parameters is refused, other source gives a warning. It imports nothing: a model runner takes seconds.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from normprobe.engines.vllm.symbols import READ, SYMBOLS, TESTED, Symbol, Use
from normprobe.errors import NormprobeError

_INSTALL = f"install vllm>={TESTED},<0.34, which normprobe knows"


def _installed() -> str:
    import vllm

    return str(getattr(vllm, "__version__", ""))


def version() -> str | None:
    """Which of the known versions the installed vLLM is: `TESTED`, `READ`, or None."""
    return next((known for known in (TESTED, READ) if _installed().startswith(f"{known}.")), None)


def check(symbols: Sequence[Symbol] = SYMBOLS) -> None:
    """Compare the installed vLLM with what is known; one warning names all functions whose source is another, one says
    that a version was never run.

    Raises NormprobeError for another version, for a function that is missing or takes other parameters, and for a class
    that is missing or lacks an attribute.
    """
    import vllm

    installed, release = version(), _installed()
    if installed is None:
        raise NormprobeError(f"expected vLLM {TESTED} or {READ}, got {release}; {_INSTALL}")
    root, changed = Path(vllm.__path__[0]).parent, []
    for symbol in symbols:
        if installed not in symbol.versions:
            continue
        source = source_of(symbol, root)
        if source is None:
            raise NormprobeError(
                f"expected {symbol.path} in vLLM {release} (for {symbol.by}), got none; {_INSTALL}"
            )
        if symbol.use is Use.READ:
            if lacking := sorted(set(symbol.parameters) - attributes_of(source)):
                raise NormprobeError(
                    f"expected {', '.join(lacking)} of {symbol.path} in vLLM {release} (for {symbol.by}), got none; "
                    f"{_INSTALL}"
                )
        elif (signature := f"{symbol.path}({parameters_of(source)})") != symbol.signature:
            raise NormprobeError(
                f"expected {symbol.signature} in vLLM {release} (for {symbol.by}), got {signature}; {_INSTALL}"
            )
        if symbol.digest and digest_of(source) != symbol.digest_in(installed):
            changed.append(symbol.path)
    if changed:
        warnings.warn(
            f"normprobe was tested with other sources of {', '.join(changed)} than this vLLM {release} has; "
            "compare a few answers with plain generation, or run tests/vllm_engine",
            stacklevel=2,
        )
    if installed == READ:
        warnings.warn(
            f"normprobe knows vLLM {READ} by its sources and was run on {TESTED}; compare a few answers with plain "
            "generation, or run tests/vllm_engine",
            stacklevel=2,
        )


def apply(use: Use) -> None:
    """Wrap the functions of this use, as far as they are not wrapped yet in this process.

    Raises NormprobeError for one that is missing.
    """
    for symbol in SYMBOLS:
        if symbol.use is use and (use is Use.ENTRY or version() in symbol.versions):
            owner_name, name = symbol.names
            owner = getattr(importlib.import_module(symbol.module), owner_name, None)
            if not hasattr(owner, name):
                raise NormprobeError(f"expected {symbol.path} in this vLLM, got none; {_INSTALL}")
            module, _, wrapper = symbol.by.partition(":")
            wrap(owner, name, getattr(importlib.import_module(f"{__package__}.{module}"), wrapper))


def wrap(owner: Any, name: str, instead: Callable[..., Any]) -> None:
    """Let `instead(method, *args)` answer calls of a method of a class or an object, unless that was done before."""
    method = getattr(owner, name)
    # Where another plugin has wrapped ours in turn, its wrapper carries this attribute too.
    if not hasattr(method, "normprobe_wrapped"):

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return instead(method, *args, **kwargs)

        wrapper.normprobe_wrapped = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapper)


@functools.cache
def _module(path: Path) -> tuple[ast.Module, list[str]]:
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def source_of(symbol: Symbol, root: Path) -> str | None:
    """The source of a function or a class, without decorators; None if there is none of that name.

    root: the folder in which vLLM is installed.
    """
    folder = root / symbol.module.replace(".", "/")
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not path.is_file():
        return None
    found: Any
    found, lines = _module(path)
    for name in symbol.names:
        # The last of that name: earlier ones are overloads.
        found = next((node for node in reversed(found.body) if getattr(node, "name", None) == name), None)
        if found is None:
            return None
    return "\n".join(line[found.col_offset :] for line in lines[found.lineno - 1 : found.end_lineno])


def parameters_of(source: str) -> str:
    """The names of a function's parameters, as in a signature: "self, first, *, option, **rest"."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    given = function.args
    given.defaults, given.kw_defaults = [], [None] * len(given.kwonlyargs)
    for node in ast.walk(given):
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(given)


def attributes_of(source: str) -> set[str]:
    """The names that a class has itself: its fields, methods, and what its methods assign to `self`."""
    (kind,) = ast.parse(source).body
    assert isinstance(kind, ast.ClassDef)
    found = {node.name for node in kind.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    found |= {
        node.target.id
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return found | {
        node.attr
        for node in ast.walk(kind)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def digest_of(source: str) -> str:
    """The first 12 hexadecimal digits of the source's SHA-256."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]
