"""Policies as text and back."""

import pytest
import torch
from profile_fixture import profile

from normprobe.errors import NormprobeError
from normprobe.policies.combined import Combined
from normprobe.policies.controls.caa import CAA
from normprobe.policies.controls.causal import DirectionOnly, LowNormSuppression, Rotation
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Policy
from normprobe.policies.spec import build
from normprobe.policies.threshold import FixedThreshold
from normprobe.policies.written import read_policy, write_policy

POLICIES: list[Policy] = [
    build([{"policy": "alrr", "k": 0.1 + 0.2}, {"policy": "probe"}], profile()),
    build({"policy": "erss", "tau": "profile"}, profile()),
    Plain((1, 2)),
    Rotation(FixedThreshold({9: 1 / 3}), seed=4),
    DirectionOnly(FixedThreshold({9: 13.0}), {9: 8.0}),
    LowNormSuppression({9: 12.0}, 0.5),
    GatedRecursion(RandomGate({3: 0.5}, 1), 2, 0.25),
    Combined((GatedRecursion(EntropyGate((3, 4), 0.7)), Plain((1,)))),
    DampedLoop.of(12, 1.0, 0),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_a_policy_comes_back_as_it_was(policy: Policy) -> None:
    assert read_policy(write_policy(policy)) == policy


def test_tensors_come_back_bit_by_bit() -> None:
    vectors = {3: torch.linspace(-1, 1, 7), 4: torch.tensor([1e-30, float("inf")])[:1]}
    caa = read_policy(write_policy(CAA(vectors, -0.25)))
    assert isinstance(caa, CAA)
    assert caa.beta == -0.25
    assert {layer: vector.tolist() for layer, vector in caa.vectors.items()} == {
        layer: vector.tolist() for layer, vector in vectors.items()
    }
    doses = Doses(torch.arange(12.0).reshape(2, 3, 2), torch.tensor([3, 2]), (4, 5), ("a", "ä"))
    replayed = read_policy(write_policy(ReplayedSuppression(doses)))
    assert isinstance(replayed, ReplayedSuppression)
    assert torch.equal(replayed.doses.delta, doses.delta)
    assert torch.equal(replayed.doses.n_steps, doses.n_steps)
    assert (replayed.doses.layers, replayed.doses.requests, replayed.scale) == ((4, 5), ("a", "ä"), None)


class Elsewhere(Plain):
    """Not one of the package's files."""


def test_a_class_from_elsewhere_is_refused_by_name() -> None:
    with pytest.raises(NormprobeError, match="got Elsewhere; use the engine hf"):
        write_policy(Elsewhere((1,)))
