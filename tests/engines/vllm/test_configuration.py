"""What an engine is started with, and the one text form of a policy."""

import json
from typing import Any

import pytest

from normprobe.engines.vllm.configuration import Configuration, canonical, has_probe
from normprobe.errors import NormprobeError


def test_the_default_policy_lasts_and_comes_first() -> None:
    alrr, probe = (canonical({"policy": name, "tau": {"2": 2.0}}) for name in ("alrr", "probe"))
    assert Configuration().lasting == ()
    assert Configuration(in_graphs=(probe,)).lasting == (probe,)
    assert Configuration(policy=alrr, in_graphs=(probe, alrr)).lasting == (alrr, probe)
    policies = Configuration(policy=alrr, in_graphs=(probe,)).lasting_policies(4)
    assert [type(policy).__name__ for policy in policies.values()] == ["ALRR", "Probe"]
    with pytest.raises(NormprobeError, match=r"expected layers 0…1, got \[2\]"):
        Configuration(in_graphs=(probe,)).lasting_policies(2)


def test_the_same_settings_have_one_text() -> None:
    assert canonical("alrr") == canonical({"policy": "alrr"}) == canonical('{"policy": "alrr"}')
    assert canonical(["alrr", "probe"]) == canonical('[{"policy": "alrr"}, {"policy": "probe"}]')
    assert canonical({"policy": "alrr", "k": 1.0}) == canonical('{"k": 1.0, "policy": "alrr"}')


@pytest.mark.parametrize(
    "spec",
    [
        "[" * 100_000,
        ["probe"] * 9,
        [{"policy": "alrr", "layers": [1] * 40_000}],
        [["alrr"]],
        {"policy": {1, 2}},
        7,
    ],
)
def test_what_describes_no_policy_is_refused(spec: object) -> None:
    with pytest.raises(NormprobeError, match="expected"):
        canonical(spec)


@pytest.mark.parametrize(
    ("policy", "probes"),
    [
        (None, False),
        ({"policy": "alrr"}, False),
        ({"policy": "probe"}, True),
        ([{"policy": "alrr"}, {"policy": "probe"}], True),
    ],
)
def test_requests_with_a_probe_bring_results(policy: Any, probes: bool) -> None:
    assert has_probe({"normprobe": json.dumps(policy)} if policy else {}) is probes
