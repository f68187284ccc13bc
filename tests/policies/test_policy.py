"""What a policy declares: its cost is what it takes, its baselines spend as much; and one file is all it needs."""

from pathlib import Path

import pytest
import torch
from profile_fixture import profile
from transformers import PreTrainedModel

import normprobe.policies
from normprobe.engines.hf import intervene
from normprobe.engines.vllm.limits import Limits
from normprobe.errors import NormprobeError
from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined
from normprobe.policies.controls.causal import Rotation
from normprobe.policies.controls.damped_loop import DampedLoop
from normprobe.policies.controls.gated_recursion import EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Cost, Policy, RunningPolicy
from normprobe.policies.probe import Probe
from normprobe.policies.rows import Rows
from normprobe.policies.spec import build
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

CPU = torch.device("cpu")
WIDTH = 6
FIXED = FixedThreshold({0: 2.0, 2: 3.0})
ADAPTIVE = AdaptiveThreshold.of(profile(), (0, 2))

TOY = '''
"""A policy in one file: every high state becomes zero, after one extra pass per layer that nobody needs."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from normprobe.policies.controls.unchanged import Plain
from normprobe.policies.policy import Cost, RunningPolicy
from normprobe.policies.rows import Change
from normprobe.policies.threshold import ThresholdPolicy


@dataclass(frozen=True)
class Erase(ThresholdPolicy):
    patience: int = 3
    share: float = 0.5

    name: ClassVar[str] = "erase"
    kind: ClassVar[str] = "suppression"
    counts: ClassVar = {"patience": "tokens"}

    def cost(self, state_bytes):
        return Cost(len(self.layers) * state_bytes, extra_passes=len(self.layers))

    def baselines(self, rate, seed, entropy_above, n_layers):
        return {"nothing": Plain(self.layers)}

    def start(self, n_slots, d, device):
        return Erasing(self)


@dataclass(frozen=True)
class Erasing(RunningPolicy):
    settings: Erase

    def apply(self, rows, layer, rerun):
        high = rows.eligible & (rows.hidden.norm(dim=-1) > self.settings.threshold.tau[layer])
        rerun(high, rows.hidden)
        return Change(rows.hidden.masked_fill(high[:, None], 0.0), high, high.long())
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of policies, with one file more."""
    (tmp_path / "erase.py").write_text(TOY)
    monkeypatch.setattr(normprobe.policies, "__path__", [*normprobe.policies.__path__, str(tmp_path)])


@pytest.mark.usefixtures("toy")
def test_a_policy_is_added_in_one_file(tiny_qwen3: PreTrainedModel) -> None:
    """A spec names it, an engine runs it, limits and experiments read what it costs and has to beat."""

    def written() -> list[list[int]]:
        ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
        return tiny_qwen3.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False).tolist()

    policy = build({"policy": "erase", "tau": {"1": 1e-6}, "patience": 4}, None)
    assert policy.layers == (1,)
    assert policy.cost(32) == Cost(32, 1)
    with intervene(tiny_qwen3, policy, record=True) as intervention:
        written()
    events = intervention.events()
    assert int(events.passes.sum()) == len(events.step) == 6
    plain = written()
    with intervene(tiny_qwen3, policy.baselines({1: 1.0}, 0, None, 4)["nothing"], quiet=True):
        assert written() == plain
    limits = Limits(length=3, lockstep=False, n_slots=8, state_bytes=32)
    with pytest.raises(NormprobeError, match="expected patience of at most 3"):
        limits.check(policy)
    with pytest.raises(
        NormprobeError, match="settings of erase among layers, tau, k, prior_tokens, patience"
    ):
        build({"policy": "erase", "tau": {"1": 1.0}, "hurry": 1}, None)


def test_without_its_file_a_policy_is_unknown() -> None:
    with pytest.raises(
        NormprobeError, match="a policy among alrr, erss, probe, suppress, clamp, got 'erase'"
    ):
        build("erase", None)


def stored(value: object) -> dict[int, int]:
    """Bytes by storage of all tensors that an object holds."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()}
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = list(vars(value).values()) if hasattr(value, "__dict__") else []
    return {at: size for part in parts for at, size in stored(part).items()}


def running(policy: Policy, n_slots: int, dtype: torch.dtype) -> RunningPolicy:
    """The policy after a pass, which may make room for states."""
    made = policy.start(n_slots, WIDTH, CPU)
    made.reset([0], ["a"])
    for layer in policy.layers:
        rows = Rows(torch.ones(1, WIDTH, dtype=dtype), torch.tensor([0]), torch.tensor([0]), torch.ones(1))
        made.apply(rows, layer, lambda active, states: states)
    made.finish()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "policy",
    [
        *(
            policy
            for tau in (FIXED, ADAPTIVE)
            for policy in (ALRR(tau), ERSS(tau, bank_size=3), Probe(tau, 5), Suppression(tau), Clamp(tau))
        ),
        GatedRecursion(RandomGate({0: 0.5})),
        DampedLoop(RandomGate({2: 0.5}), first=1),
        Rotation(FIXED, 0),
        Plain((0, 2)),
        Combined((ALRR(ADAPTIVE), ERSS(FIXED), Probe(ADAPTIVE))),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_history_takes_the_memory_that_its_cost_names(policy: Policy, dtype: torch.dtype) -> None:
    small, large = (sum(stored(running(policy, n, dtype)).values()) for n in (3, 10))
    assert large - small == 7 * policy.cost(WIDTH * dtype.itemsize).bytes_per_slot


def test_the_cost_of_a_combination_is_the_sum_of_its_parts() -> None:
    parts = (ALRR(FIXED, max_passes=3), ERSS(ADAPTIVE), Probe(FIXED))
    whole = Combined(parts)
    assert whole.parts == parts
    assert whole.cost(8) == sum((part.cost(8) for part in parts), Cost())
    assert whole.cost(8).extra_passes == 6


def test_baselines_of_recursion_spend_as_many_passes_and_those_of_steering_change_one_thing() -> None:
    policy = ALRR(FIXED, max_passes=2, damping=0.5)
    shares: list[float] = []

    def entropy_above(share: float) -> float:
        shares.append(share)
        return 1.25

    found = policy.baselines({0: 0.25, 2: 0.75}, 7, entropy_above, 12)
    loops = [found.pop(name) for name in ("damped loop", "damped loop, always on")]
    assert list(found) == ["random gate", "entropy gate", "always on"]
    assert found["random gate"] == GatedRecursion(RandomGate({0: 0.25, 2: 0.75}, 7), 2, 0.5)
    assert found["entropy gate"] == GatedRecursion(EntropyGate((0, 2), 1.25), 2, 0.5)
    assert shares == [0.5]
    assert {other.cost(0).extra_passes for other in found.values()} == {policy.cost(0).extra_passes}
    # 2 passes at a quarter and at three quarters of the tokens; the loop makes 2 · 4 at a quarter of them.
    assert loops == [DampedLoop(RandomGate({7: rate}, 7), first=4) for rate in (0.25, 1.0)]
    assert "entropy gate" not in policy.baselines({0: 0.1, 2: 0.1}, 0, None, 12)
    steering = ERSS(FIXED, beta=0.25)
    directions = [other.direction for other in steering.baselines({}, 0, None, 12).values()]  # type: ignore[attr-defined]
    assert directions == ["random_bank", "scaled", "rotated"]
    assert (
        Combined((policy, steering)).baselines({0: 0.5}, 0, None, 12)
        == Probe(FIXED).baselines({}, 0, None, 12)
        == {}
    )
