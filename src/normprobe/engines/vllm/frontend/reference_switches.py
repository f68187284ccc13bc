"""The environment switches of the paper's reference code, with the meaning its README gives. Deprecated from the start.

VLLM_PATCH: loop | rr → alrr, suppress, ttts | erss → erss, rerank → probe.
PATCHED_LAYERS="21,22", PATCHED_TAU_JSON='{"21": 1300}', ADAPTIVE, ADAPTIVE_IQR_K.
ADAPTIVE_WARMUP_STEPS, ADAPTIVE_MIN_IQR and ADAPTIVE_TAU_FLOOR have no counterpart: thresholds start from the layer
profile, so there is no warm-up, and the least IQR is the paper's 0.001.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
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
_IDLE = ("ADAPTIVE_WARMUP_STEPS", "ADAPTIVE_MIN_IQR", "ADAPTIVE_TAU_FLOOR")


def policy(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The policy they mean (see `normprobe.policies.spec`); None if the switch is not set. Warns: deprecated.

    In the reference ADAPTIVE is on unless switched off, so given τ are silently ignored; here given τ hold unless
    ADAPTIVE is switched on, and both together are refused.

    Raises NormprobeError for a value that cannot be meant.
    """
    switch = environment.get(SWITCH, "").strip().lower()
    if not switch:
        return None
    if switch not in _POLICIES:
        raise NormprobeError(f"expected {SWITCH} among {', '.join(_POLICIES)}, got {switch!r}; correct it")
    spec: dict[str, Any] = {"policy": _POLICIES[switch]}
    if layers := environment.get("PATCHED_LAYERS", "").strip():
        try:
            spec["layers"] = [int(layer) for layer in layers.split(",")]
        except ValueError as error:
            raise NormprobeError(f'expected PATCHED_LAYERS as "21,22", got {layers!r}; correct it') from error
    tau = _tau(environment.get("PATCHED_TAU_JSON", "").strip())
    adaptive = _flag(environment.get("ADAPTIVE"))
    if tau is not None and adaptive:
        raise NormprobeError(
            "expected PATCHED_TAU_JSON or ADAPTIVE=1, got both; drop one (the reference ignores the τ given)"
        )
    if tau is not None:
        spec["tau"] = {key: tau[key] for key in tau if "layers" not in spec or int(key) in spec["layers"]}
    elif adaptive is False:
        spec["tau"] = "profile"
    elif k := environment.get("ADAPTIVE_IQR_K"):
        spec["k"] = _number("ADAPTIVE_IQR_K", k)
    idle = [name for name in _IDLE if name in environment]
    warnings.warn(
        f"{SWITCH} is the reference code's switch; give NORMPROBE the policy {json.dumps(spec)} instead"
        + (f" ({', '.join(idle)} mean nothing here)" if idle else ""),
        FutureWarning,  # shown to users, unlike DeprecationWarning
        stacklevel=2,
    )
    return spec


def _tau(text: str) -> dict[str, float] | None:
    if not text:
        return None
    try:
        return {str(int(layer)): float(value) for layer, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise NormprobeError(
            f"expected PATCHED_TAU_JSON as '{{\"21\": 1300}}', got {text!r}; correct it"
        ) from error


def _flag(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.strip().lower() not in (*_TRUE, *_FALSE):
        raise NormprobeError(f"expected ADAPTIVE as 1 or 0, got {text!r}; correct it")
    return text.strip().lower() in _TRUE


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise NormprobeError(f"expected {name} as a number, got {text!r}; correct it") from error
