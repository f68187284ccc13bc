"""How an engine is started with normprobe: one environment variable, or `additional_config`. Imports no vLLM.

NORMPROBE=runs/mine/layer_profile.json                                        requests name their policies
NORMPROBE='{"profile": "layer_profile.json", "policy": {"policy": "alrr"}}'   all others get this one
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from normprobe.engines.vllm.configuration import FIELD, Configuration, canonical, parse_json
from normprobe.engines.vllm.frontend import reference_switches
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.spec import build

VARIABLE = "NORMPROBE"


def find_configuration(additional: object, environment: Mapping[str, str]) -> Configuration | None:
    """The configuration in `additional_config`, else in NORMPROBE; None if nothing is set.

    The default policy may also come from the switches of the paper's reference code. The profile is read here, once:
    the file may change later, or be missing on the machines where workers run.

    Raises NormprobeError for what is neither a path nor a configuration, an unreadable profile, or a bad policy.
    """
    given: object = additional.get(FIELD) if isinstance(additional, Mapping) else None
    given = given or environment.get(VARIABLE)
    switched = reference_switches.policy(environment)
    if not given and switched is None:
        return None
    if isinstance(given, str):
        given = parse_json(given) if given.lstrip().startswith("{") else {"profile": given}
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
    profile = None if path is None else LayerProfile.load(Path(str(path)).expanduser())
    text = None if policy is None else canonical(policy)
    if text is not None:
        build(json.loads(text), profile)
    return Configuration(None if profile is None else json.dumps(asdict(profile)), text)
