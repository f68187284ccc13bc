"""What an engine was started with, and the one text form of a policy. Imports no vLLM; all processes read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.policy import Policy
from normprobe.policies.spec import build
from normprobe.runs.untrusted import json_value

FIELD = "normprobe"
"""The key in `additional_config`, in `SamplingParams.extra_args` and in `vllm_xargs`."""
SAMPLES = "normprobe_samples"
"""The key in `extra_args` under which an admitted request with n > 1 carries its n to each of its samples."""
RECORD = "normprobe_events"
"""The key in `extra_args` under which a request asks what its policy did, step by step (true)."""
KEPT = "normprobe_kept"
"""The key in `additional_config` of the policies that are kept by name, {description: text}, and in such a description
of the name; only normprobe's own engine keeps any."""
OPERATOR = "normprobe::intervene"
"""The operator that applies policies in a compiled model."""
MOST_PARTS = 8
"""Policies in one list."""
MOST_TEXT = 2**16
"""Characters of a policy's description."""
PLAIN = "plain"
"""The name by which a request asks for no policy, not even the engine's default one."""


@dataclass(frozen=True)
class Configuration:
    """The settings of an engine: text only, since it travels to workers on other machines.

    profile: a layer profile as JSON; None where every τ is given. policy: JSON of the default policy (see
    `normprobe.policies.spec`); None if requests that name no policy get none. in_graphs: JSON of further policies that
    are part of the CUDA graphs of whole decode steps, as the default one is.
    """

    profile: str | None = None
    policy: str | None = None
    in_graphs: tuple[str, ...] = ()

    @classmethod
    def of(cls, additional: object) -> Configuration | None:
        """The configuration in an engine's `additional_config`, as a mapping; None without one."""
        given = additional.get(FIELD) if isinstance(additional, Mapping) else None
        # A tuple is a list after a journey as JSON.
        return cls(**given | {"in_graphs": tuple(given.get("in_graphs", ()))}) if given else None

    def layer_profile(self) -> LayerProfile | None:
        return None if self.profile is None else LayerProfile.from_dict(json.loads(self.profile))

    @property
    def lasting(self) -> tuple[str, ...]:
        """JSON of the policies that are there from the start and always: the default one, then those in graphs."""
        default = () if self.policy is None else (self.policy,)
        return tuple(dict.fromkeys((*default, *self.in_graphs)))

    def lasting_policies(self, n_layers: int) -> dict[str, Policy]:
        """The lasting policies by their JSON. Raises NormprobeError as `policy_of` does."""
        profile = self.layer_profile()
        return {text: policy_of(text, profile, n_layers) for text in self.lasting}


def canonical(spec: object) -> str:
    """A policy's description as JSON, the same text for the same settings: a mapping or a list of mappings.

    Raises NormprobeError for what is not JSON, for a long list, and for a list of anything but names and mappings.
    """
    if isinstance(spec, str):
        spec = parse_json(spec) if spec.lstrip()[:1] in ("{", "[") else {"policy": spec}
    if isinstance(spec, list):
        if len(spec) > MOST_PARTS:
            raise NormprobeError(f"expected at most {MOST_PARTS} policies, got {len(spec)}; leave some out")
        spec = [{"policy": part} if isinstance(part, str) else part for part in spec]
        if not all(isinstance(part, Mapping) for part in spec):
            raise NormprobeError(
                f'expected a list of policies, each a name or {{"policy": name, …}}, got {spec!r}; correct it'
            )
    try:
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        text = ""
    if len(text) > MOST_TEXT:
        raise NormprobeError(
            f"expected at most {MOST_TEXT} characters of settings, got {len(text)}; shorten them"
        )
    if text and isinstance(spec, Mapping | list):
        return text
    raise NormprobeError(
        f'expected a policy as its name or as JSON, got {spec!r}; write {{"policy": name, …}}'
    )


def policy_of(text: str, profile: LayerProfile | None, n_layers: int) -> Policy:
    """The policy that canonical JSON describes.

    Raises NormprobeError as `build` does, and for layers that the model lacks.
    """
    policy = build(json.loads(text), profile)
    if absent := [layer for layer in policy.layers if not 0 <= layer < n_layers]:
        raise NormprobeError(f"expected layers 0…{n_layers - 1}, got {absent}; use layers that the model has")
    return policy


def wants_results(extra_args: Mapping[str, Any] | None) -> bool:
    """Whether an admitted request brings results: its policy holds a probe, or it asks for events."""
    given = extra_args or {}
    return FIELD in given and (bool(given.get(RECORD)) or has_probe(given))


def has_probe(extra_args: Mapping[str, Any] | None) -> bool:
    """Whether the policy of an admitted request holds a probe."""
    text = (extra_args or {}).get(FIELD)
    if not isinstance(text, str):
        return False
    spec = json.loads(text)
    return any(part.get("policy") == "probe" for part in (spec if isinstance(spec, list) else [spec]))


def parse_json(text: str) -> object:
    """The value of JSON text. Raises NormprobeError for text that is not JSON."""
    try:
        return json_value(text)
    except ValueError as error:
        raise NormprobeError(f"expected JSON, got {text!r} ({error}); correct it") from error
