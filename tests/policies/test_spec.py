"""Policies from what a command line or a request can say."""

import json
from dataclasses import replace

import pytest
from profile_fixture import profile

from normprobe.errors import NormprobeError
from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined
from normprobe.policies.controls.causal import Rotation
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Policy
from normprobe.policies.spec import build, spec_of
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold


def test_names_and_settings_make_policies() -> None:
    alrr = build("alrr", profile())
    assert alrr == ALRR(AdaptiveThreshold.of(profile()))
    assert build({"policy": "alrr", "layers": [0, 2], "damping": 0.5, "k": 3}, profile()) == ALRR(
        AdaptiveThreshold.of(profile(), (0, 2), k=3.0), damping=0.5
    )
    erss = build({"policy": "erss", "tau": "profile", "trigger": "low_streak"}, profile())
    assert erss == ERSS(FixedThreshold.of(profile()), "low_streak")
    assert build({"policy": "suppress", "tau": {"1": 20}, "scale": 0.5}, None) == Suppression(
        FixedThreshold({1: 20.0}), 0.5
    )
    assert build("clamp", profile()) == Clamp(AdaptiveThreshold.of(profile()))
    both = build([{"policy": "alrr"}, {"policy": "erss"}, {"policy": "probe"}], profile())
    assert isinstance(both, Combined)
    assert isinstance(both, Policy)
    assert hash(alrr) == hash(build("alrr", profile()))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("arlr", "a policy among alrr, erss, probe, suppress, clamp, got 'arlr'"),
        ({"policy": "alrr", "alpha": 1.0}, "settings of alrr among .*, got alpha"),
        ({"policy": "alrr", "damping": "much"}, "damping of alrr like its default 1.0, got 'much'"),
        ({"policy": "alrr", "max_passes": 1.5}, "max_passes of alrr"),
        ({"policy": "alrr", "max_passes": True}, "max_passes of alrr"),
        ({"policy": "alrr", "damping": 2.0}, r"damping in \[0, 1\]"),
        ({"policy": "alrr", "layers": [9]}, r"layers 0…2, got \[9\]"),
        ({"policy": "alrr", "layers": "all"}, "layers as a list of numbers"),
        ({"policy": "alrr", "tau": {"1": 0}}, "τ > 0"),
        ({"policy": "alrr", "tau": {"1": float("nan")}}, "τ > 0"),
        ({"policy": "alrr", "tau": "low"}, 'tau "adaptive", "profile"'),
        ({"policy": "alrr", "tau": {"1": 2}, "layers": [2]}, r"τ for layers \[2\], got \[1\]"),
        ({"policy": "alrr", "tau": "profile", "k": 2}, "an adaptive threshold only"),
        ({"policy": "suppress", "scale": 2}, r"a suppression factor in \[0, 1\]"),
        ({"policy": "erss", "bank_size": 0}, "bank_size ≥ 1"),
        ([], "a policy as a name"),
        ([{"policy": "alrr"}, {"policy": "alrr"}], "do not conflict"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(spec, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as caught:
        build(spec, profile())
    assert "\n" not in str(caught.value)


def test_a_threshold_without_a_profile_is_refused() -> None:
    with pytest.raises(NormprobeError, match="a layer profile to take thresholds from"):
        build("alrr", None)


@pytest.mark.parametrize(
    "spec",
    [
        "alrr",
        {"policy": "erss", "trigger": "low_streak", "streak": 2, "tau": "profile"},
        {"policy": "clamp", "fraction": 0.3, "layers": [1]},
        {"policy": "suppress", "tau": {"0": 13.7, "2": 1e-3}},
        [{"policy": "alrr", "k": 0.1, "damping": 0.3}, {"policy": "probe", "max_tokens": 3}],
    ],
)
def test_a_policy_is_built_again_from_its_description(spec) -> None:
    policy = build(spec, profile())
    assert build(json.loads(json.dumps(spec_of(policy, profile()))), profile()) == policy


def test_a_policy_that_no_description_makes_is_refused() -> None:
    with pytest.raises(NormprobeError, match="got Rotation"):
        spec_of(Rotation(FixedThreshold({1: 2.0}), seed=0), None)
    doubled = {
        mode: [[2 * q for q in layer] for layer in layers] for mode, layers in profile().quantiles.items()
    }
    other = replace(profile(), quantiles=doubled, quantiles_with_sinks=doubled)
    with pytest.raises(NormprobeError, match="from the engine's own layer profile, got ALRR"):
        spec_of(build("alrr", other), profile())
