"""The environment switches of the paper's reference code, with the meaning its README gives. Deprecated from the start.

The reference's command line works unchanged: VLLM_PATCH=loop PATCHED_LAYERS=21,22 PATCHED_TAU_JSON='{"21": 1300}' …
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from normprobe.errors import NormprobeError

SWITCH = "VLLM_PATCH"
_POLICIES = {
    "loop": "alrr",
    "rr": "alrr",
    "suppress": "suppress",
    "ttts": "erss",
    "erss": "erss",
    "rerank": "probe",
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
_SWITCHES: dict[str, tuple[str, Callable[[str], Any]]] = {
    SWITCH: (f"one of {', '.join(_POLICIES)}", lambda text: _POLICIES[text.lower()]),
    "PATCHED_LAYERS": ("21,22", lambda text: [int(layer) for layer in text.split(",")]),
    "PATCHED_TAU_JSON": (
        '{"21": 1300}',
        lambda text: {str(int(layer)): float(tau) for layer, tau in json.loads(text).items()},
    ),
    "ADAPTIVE": ("1 or 0", lambda text: (*_FALSE, *_TRUE).index(text.lower()) >= len(_FALSE)),
    "ADAPTIVE_IQR_K": ("a number", float),
}
"""By switch: what is expected, and what reads its text."""
_WITHOUT_EFFECT = ("ADAPTIVE_WARMUP_STEPS", "ADAPTIVE_MIN_IQR", "ADAPTIVE_TAU_FLOOR")
"""Thresholds start from the layer profile, so there is no warm-up, and the least IQR is the paper's 0.001."""


def policy(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The policy that the switches ask for (see `normprobe.policies.spec`); None without VLLM_PATCH. Warns: deprecated.

    In the reference ADAPTIVE is on unless switched off, so given τ are silently ignored; here given τ hold unless
    ADAPTIVE is switched on, and both together are refused.

    Raises NormprobeError for a value that a switch does not have.
    """
    if not environment.get(SWITCH, "").strip():
        return None
    given = {name: _read(name, environment[name].strip()) for name in _SWITCHES if name in environment}
    spec: dict[str, Any] = {"policy": given[SWITCH]}
    layers, tau, adaptive = (given.get(name) for name in ("PATCHED_LAYERS", "PATCHED_TAU_JSON", "ADAPTIVE"))
    if tau is not None and adaptive:
        raise NormprobeError(
            "expected PATCHED_TAU_JSON or ADAPTIVE=1, got both; drop one (the reference ignores the τ given)"
        )
    if layers is not None:
        spec["layers"] = layers
    if tau is not None:
        spec["tau"] = {layer: tau[layer] for layer in tau if layers is None or int(layer) in layers}
    elif adaptive is False:
        spec["tau"] = "profile"
    elif (k := given.get("ADAPTIVE_IQR_K")) is not None:
        spec["k"] = k
    ignored = [name for name in _WITHOUT_EFFECT if name in environment]
    warnings.warn(
        f"{SWITCH} is the reference code's switch; give NORMPROBE the policy {json.dumps(spec)} instead"
        + (f" ({', '.join(ignored)} mean nothing here)" if ignored else ""),
        FutureWarning,  # shown to users, unlike DeprecationWarning
        stacklevel=2,
    )
    return spec


def _read(name: str, text: str) -> Any:
    """The value of a switch; None for an empty one, except ADAPTIVE, which is then off."""
    expected, read = _SWITCHES[name]
    if not text and name != "ADAPTIVE":
        return None
    try:
        return read(text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise NormprobeError(f"expected {name} as {expected}, got {text!r}; correct it") from error
