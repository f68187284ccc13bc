"""How an engine is started with normprobe: one environment variable, or `additional_config`. Imports no vLLM.

NORMPROBE=runs/mine/layer_profile.json                                        requests name their policies
NORMPROBE='{"profile": "layer_profile.json", "policy": {"policy": "alrr"}}'   all others get this one
NORMPROBE='{…, "in_graphs": ["probe", "erss"]}'                               these too are part of CUDA graphs

The switches of the paper's reference code work unchanged, with the meaning its README gives; deprecated from the start:
VLLM_PATCH=loop PATCHED_LAYERS=21,22 PATCHED_TAU_JSON='{"21": 1300}' …
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from normprobe.engines.vllm.configuration import FIELD, Configuration, canonical, parse_json
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.spec import build
from normprobe.runs.untrusted import json_value

VARIABLE = "NORMPROBE"
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
        lambda text: {str(int(layer)): float(tau) for layer, tau in json_value(text).items()},
    ),
    "ADAPTIVE": ("1 or 0", lambda text: (*_FALSE, *_TRUE).index(text.lower()) >= len(_FALSE)),
    "ADAPTIVE_IQR_K": ("a number", float),
}
"""By switch: what is expected, and what reads its text."""
_WITHOUT_EFFECT = ("ADAPTIVE_WARMUP_STEPS", "ADAPTIVE_MIN_IQR", "ADAPTIVE_TAU_FLOOR")
"""Thresholds start from the layer profile, so there is no warm-up, and the least IQR is the paper's 0.001."""


def find_configuration(additional: object, environment: Mapping[str, str]) -> Configuration | None:
    """The configuration in `additional_config`, else in NORMPROBE; None if nothing is set.

    The default policy may also come from the switches of the paper's reference code. The profile is read here, once:
    the file may change later, or be missing on the machines where workers run.

    Raises NormprobeError for what is neither a path nor a configuration, an unreadable profile, or a bad policy.
    """
    given: object = additional.get(FIELD) if isinstance(additional, Mapping) else None
    given = given or environment.get(VARIABLE)
    switched = _switched(environment)
    if not given and switched is None:
        return None
    if isinstance(given, str):
        given = parse_json(given) if given.lstrip().startswith("{") else {"profile": given}
    given = given or {}
    if not isinstance(given, Mapping) or not set(given) <= {"profile", "policy", "in_graphs"}:
        raise NormprobeError(
            f"expected {VARIABLE} as the path of a layer profile or "
            f'{{"profile": path, "policy": …, "in_graphs": […]}}, got {given!r}; correct it'
        )
    if not isinstance(in_graphs := given.get("in_graphs") or [], list | tuple):
        raise NormprobeError(f"expected in_graphs as a list of policies, got {in_graphs!r}; correct it")
    if switched is not None:
        if given.get("policy") is not None:
            raise NormprobeError(f"expected one policy, got {SWITCH} and one in {VARIABLE}; drop the former")
        given = {**given, "policy": switched}
    path, policy = given.get("profile"), given.get("policy")
    profile = None if path is None else LayerProfile.load(Path(str(path)).expanduser())
    found = Configuration(
        None if profile is None else json.dumps(asdict(profile)),
        None if policy is None else canonical(policy),
        tuple(canonical(one) for one in in_graphs),
    )
    for text in found.lasting:
        build(json.loads(text), profile)
    return found


def _switched(environment: Mapping[str, str]) -> dict[str, Any] | None:
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
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise NormprobeError(f"expected {name} as {expected}, got {text!r}; correct it") from error
