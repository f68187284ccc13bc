"""What an engine is started with, and the one text form of a policy."""

import json
from typing import Any

import pytest

from normprobe.engines.vllm.configuration import Configuration, canonical, has_probe
from normprobe.errors import NormprobeError


def test_the_layers_that_the_default_policy_runs_once_more() -> None:
    alrr, probe = {"policy": "alrr", "tau": {"3": 2.0, "1": 2.0}}, {"policy": "probe", "tau": {"2": 2.0}}
    for policy, layers in ((None, ()), (probe, ()), (alrr, (1, 3)), ([alrr, probe], (1, 3))):
        text = None if policy is None else canonical(policy)
        assert Configuration(policy=text).recurses(4) == layers


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
