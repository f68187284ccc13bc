"""Any policy as text and back: how an engine tells its own processes. What users write is in `spec`.

The text is JSON. An object is {"is": its class, its fields by name}, for the classes of this folder's files alone; the
constructor checks them as always.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

from normprobe import policies
from normprobe.errors import NormprobeError
from normprobe.policies import controls
from normprobe.policies.policy import Policy

_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.int64)}


def write_policy(policy: Policy) -> str:
    """The text of a policy. Raises NormprobeError for a class from elsewhere."""
    return json.dumps(_plain(policy), separators=(",", ":"))


def read_policy(text: str) -> Policy:
    """The policy that `write_policy` wrote. Raises NormprobeError as its constructor does."""
    return _made(json.loads(text))


@cache
def _classes() -> dict[str, type]:
    """The dataclasses of policies and of their parts, by name."""
    found: dict[str, type] = {}
    for package in (policies, controls):
        # The operations hold no policy, and the kernels among them need Triton.
        names = [one.name for one in iter_modules(package.__path__) if not one.name.startswith("ops")]
        for module in (import_module(f"{package.__name__}.{name}") for name in names):
            found |= {
                name: value
                for name, value in vars(module).items()
                if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
            }
    return found


def _plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    kind = type(value)
    if _classes().get(kind.__name__) is kind:
        return {"is": kind.__name__} | {
            field.name: _plain(getattr(value, field.name)) for field in fields(value)
        }
    if isinstance(value, torch.Tensor) and str(value.dtype) in _DTYPES:
        content = base64.b64encode(value.detach().cpu().contiguous().numpy().tobytes()).decode()
        return {"is": "tensor", "dtype": str(value.dtype), "shape": list(value.shape), "content": content}
    if isinstance(value, Mapping):
        return {"is": "mapping", "items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NormprobeError(
        f"expected a policy of normprobe.policies whose settings are numbers, text and tensors, got {kind.__name__}; "
        "use the engine hf"
    )


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_made(item) for item in value)
    if not isinstance(value, dict):
        return value
    match value.pop("is"):
        case "tensor":
            content = bytearray(base64.b64decode(value["content"]))
            flat = torch.frombuffer(content, dtype=_DTYPES[value["dtype"]]) if content else torch.empty(0)
            return flat.to(_DTYPES[value["dtype"]]).reshape(value["shape"])
        case "mapping":
            return {_made(key): _made(item) for key, item in value["items"]}
        case name:
            return _classes()[name](**{key: _made(item) for key, item in value.items()})
