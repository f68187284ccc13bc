"""How an engine is told of normprobe: one environment variable, or `additional_config`. Knows no vLLM.

NORMPROBE=runs/mine/layer_profile.json                                        requests name their policies
NORMPROBE='{"profile": "layer_profile.json", "policy": {"policy": "alrr"}}'   all others get this one
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normprobe.engines.vllm.frontend import reference_switches
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.combined import parts_of
from normprobe.policies.rows import Policy
from normprobe.policies.spec import build

VARIABLE = "NORMPROBE"
FIELD = "normprobe"
"""The key in `additional_config`, in `SamplingParams.extra_args` and in `vllm_xargs`."""

SAMPLES = "normprobe_samples"
"""The key in `extra_args` under which an admitted request with n > 1 carries its n to each of its samples."""

OPERATOR = "normprobe::intervene"
"""What stands for the policies in a compiled model."""

MOST_PARTS = 8
"""Policies in one list."""

MOST_TEXT = 2**16
"""Characters of a policy's description."""

PLAIN = "plain"
"""What a request names to be left alone by the engine's default policy."""


@dataclass(frozen=True)
class Configuration:
    """What an engine is started with: text only, since it travels to workers on other machines.

    profile: a layer profile as JSON; None where every τ is given. policy: JSON of the default policy (see
    `normprobe.policies.spec`); None if requests without one of their own are left alone.
    """

    profile: str | None = None
    policy: str | None = None

    @classmethod
    def find(cls, additional: object, environment: Mapping[str, str]) -> Configuration | None:
        """From `additional_config`, else NORMPROBE; the policy also from the switches of the paper's reference code.

        None if nothing is set.
        Raises NormprobeError for anything that cannot be meant, a profile that cannot be read, or a bad default policy.
        """
        given: object = additional.get(FIELD) if isinstance(additional, Mapping) else None
        given = given or environment.get(VARIABLE)
        switched = reference_switches.policy(environment)
        if not given and switched is None:
            return None
        if isinstance(given, str):
            given = _json(given) if given.lstrip().startswith("{") else {"profile": given}
        given = given or {}
        if not isinstance(given, Mapping) or not set(given) <= {"profile", "policy"}:
            raise NormprobeError(
                f'expected {VARIABLE} as the path of a layer profile or {{"profile": path, "policy": …}}, '
                f"got {given!r}; correct it"
            )
        if switched is not None:
            if given.get("policy") is not None:
                raise NormprobeError(
                    f"expected one policy, got {reference_switches.SWITCH} and one in {VARIABLE}; drop the former"
                )
            given = {**given, "policy": switched}
        path, policy = given.get("profile"), given.get("policy")
        # Read once: the file may change, or be none where workers run.
        profile = None if path is None else LayerProfile.load(Path(str(path)).expanduser())
        text = None if policy is None else canonical(policy)
        if text is not None:
            build(json.loads(text), profile)
        return cls(None if profile is None else json.dumps(asdict(profile)), text)

    @classmethod
    def of(cls, additional: object) -> Configuration | None:
        """What `to_dict` put into `additional_config`."""
        given = additional.get(FIELD) if isinstance(additional, Mapping) else None
        return cls(**given) if given else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def layer_profile(self) -> LayerProfile | None:
        """The profile that `profile` says."""
        return None if self.profile is None else LayerProfile.from_dict(json.loads(self.profile))

    def recurses(self, n_layers: int) -> tuple[int, ...]:
        """The layers that the default policy runs once more.

        Raises NormprobeError as `policy_of` does.
        """
        if self.policy is None:
            return ()
        parts = parts_of(policy_of(self.policy, self.layer_profile(), n_layers))
        return tuple(sorted({layer for part in parts if part.kind == "recursion" for layer in part.layers}))


def canonical(spec: object) -> str:
    """A policy's description as JSON, the same text for the same settings: a mapping or a list of mappings.

    Raises NormprobeError for what is not JSON, and for a long list, or one of anything but names and mappings.
    """
    if isinstance(spec, str):
        spec = _json(spec) if spec.lstrip()[:1] in ("{", "[") else {"policy": spec}
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


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NormprobeError(f"expected JSON, got {text!r} ({error}); correct it") from error
