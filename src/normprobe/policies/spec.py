"""Policies from a name and settings: what a command line, a request or a configuration file can say.

"alrr"
{"policy": "alrr", "layers": [9, 10], "damping": 0.5, "k": 1.5}
{"policy": "erss", "trigger": "at_peaks", "tau": "profile"}
[{"policy": "alrr"}, {"policy": "probe"}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from normprobe import policies
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.combined import Combined
from normprobe.policies.policy import Policy
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold, Threshold, ThresholdPolicy

Spec = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]

THRESHOLD_KEYS = ("layers", "tau", "k", "prior_tokens")
"""layers: where (default: the profile's chosen layers). tau: "adaptive" (default: per request, from the profile's
quantiles), "profile" (the profile's own, fixed) or {layer: τ}. k, prior_tokens: of the adaptive one."""


def named_policies() -> dict[str, type[ThresholdPolicy]]:
    """The policies that a spec can name, by name: each `ThresholdPolicy` in a file of this folder."""
    # The operations hold no policy, and the kernels among them need Triton.
    names = [found.name for found in iter_modules(policies.__path__) if not found.name.startswith("ops")]
    modules = [import_module(f"{policies.__name__}.{name}") for name in names]
    return {
        value.name: value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ThresholdPolicy) and value is not ThresholdPolicy
    }


def build(spec: Spec, profile: LayerProfile | None) -> Policy:
    """The policy that a name, a mapping or a list of mappings describes.

    Raises NormprobeError for an unknown name or setting, a value of the wrong type, layers that the profile lacks,
    policies that conflict, or a threshold that needs a profile where there is none.
    """
    if isinstance(spec, str):
        return build({"policy": spec}, profile)
    known = named_policies()
    if not isinstance(spec, Mapping):
        if not isinstance(spec, Sequence) or not spec:
            raise NormprobeError(
                f'expected a policy as a name or as {{"policy": name, …}}, got {spec!r}; '
                f"name one of {', '.join(known)}"
            )
        parts = tuple(build(part, profile) for part in spec)
        return parts[0] if len(parts) == 1 else Combined(parts)
    name = spec.get("policy")
    if not isinstance(name, str) or name not in known:
        raise NormprobeError(f"expected a policy among {', '.join(known)}, got {name!r}; correct the name")
    defaults = _defaults(known[name])
    settings = {key: value for key, value in spec.items() if key not in ("policy", *THRESHOLD_KEYS)}
    if unknown := sorted(set(settings) - set(defaults)):
        raise NormprobeError(
            f"expected settings of {name} among {', '.join([*THRESHOLD_KEYS, *defaults])}, got {', '.join(unknown)}; "
            "correct them"
        )
    for key, value in settings.items():
        if not _fits(value, defaults[key]):
            raise NormprobeError(
                f"expected {key} of {name} like its default {defaults[key]!r}, got {value!r}; correct it"
            )
    # JSON does not tell 1 from 1.0.
    numbers = {key: float(value) for key, value in settings.items() if isinstance(defaults[key], float)}
    return known[name](threshold=_threshold(spec, profile), **settings | numbers)


def _fits(value: object, default: object) -> bool:
    kinds = int | float if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _threshold(spec: Mapping[str, Any], profile: LayerProfile | None) -> Threshold:
    tau, layers = spec.get("tau", "adaptive"), spec.get("layers")
    if layers is not None and not (
        isinstance(layers, Sequence) and layers and all(type(layer) is int for layer in layers)
    ):
        raise NormprobeError(f"expected layers as a list of numbers, got {layers!r}; write them as [9, 10]")
    rest = {key: spec[key] for key in ("k", "prior_tokens") if key in spec}
    if bad := [key for key, value in rest.items() if not _fits(value, 1.0)]:
        raise NormprobeError(f"expected numbers for {', '.join(bad)}, got {rest}; correct them")
    if tau != "adaptive" and rest:
        raise NormprobeError(
            f"expected {', '.join(rest)} with an adaptive threshold only, got tau {tau!r}; leave them out"
        )
    if isinstance(tau, Mapping):
        try:
            given = {int(layer): float(value) for layer, value in tau.items()}
        except (TypeError, ValueError) as error:
            raise NormprobeError(f"expected τ as {{layer: number}}, got {dict(tau)!r}; correct it") from error
        if layers is not None and set(layers) != set(given):
            raise NormprobeError(
                f"expected τ for layers {list(layers)}, got {sorted(given)}; give the same layers or leave them out"
            )
        return FixedThreshold(given)
    if tau not in ("adaptive", "profile"):
        raise NormprobeError(
            f'expected tau "adaptive", "profile" or {{layer: number}}, got {tau!r}; correct it'
        )
    if profile is None:
        raise NormprobeError(
            "expected a layer profile to take thresholds from, got none; give one, or τ per layer"
        )
    if tau == "profile":
        return FixedThreshold.of(profile, layers)
    return AdaptiveThreshold.of(profile, layers, **{key: float(value) for key, value in rest.items()})


def spec_of(policy: Policy, profile: LayerProfile | None) -> list[dict[str, Any]]:
    """The description from which `build` makes this policy, given this profile.

    Raises NormprobeError for a policy that none describes: one without a name, or thresholds of another profile.
    """
    named = [part for part in policy.parts if isinstance(part, ThresholdPolicy)]
    spec = [
        {"policy": part.name, **_threshold_spec(part.threshold)}
        | {key: getattr(part, key) for key in _defaults(type(part))}
        for part in named
    ]
    if len(spec) < len(policy.parts) or build(spec, profile) != policy:
        raise NormprobeError(
            f"expected policies among {', '.join(named_policies())}, with thresholds given or from the engine's own "
            f"layer profile, got {', '.join(type(part).__name__ for part in policy.parts)}; build them from it"
        )
    return spec


def _defaults(policy: type[ThresholdPolicy]) -> dict[str, Any]:
    """The settings that a policy takes besides its threshold, with their defaults."""
    return {field.name: field.default for field in fields(policy) if field.name != "threshold"}


def _threshold_spec(threshold: Threshold) -> dict[str, Any]:
    if isinstance(threshold, FixedThreshold):
        return {"tau": {str(layer): tau for layer, tau in threshold.tau.items()}}
    return {"layers": list(threshold.layers), "k": threshold.k, "prior_tokens": threshold.prior_tokens}
