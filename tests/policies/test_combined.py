"""Several policies at once: order, layers, extra passes, conflicts; and that no policy waits for the device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from normprobe.errors import NormprobeError
from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined, RunningCombined
from normprobe.policies.controls.caa import CAA
from normprobe.policies.controls.causal import DirectionOnly, LowNormSuppression, Rotation
from normprobe.policies.controls.gated_recursion import EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.policies.erss import DIRECTIONS, ERSS
from normprobe.policies.policy import Policy, Stateless
from normprobe.policies.probe import Probe, RunningProbe
from normprobe.policies.rows import Change, Rerun, Rows
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import FixedThreshold

CPU = torch.device("cpu")
TAU = FixedThreshold({1: 3.0})
HIGH = Suppression(TAU, 0.5)
DOSES = Doses(torch.ones(1, 4, 1), torch.tensor([4]), (1,), ("a",))
SUPPRESSIONS: list[Policy] = [
    HIGH,
    LowNormSuppression({1: 3.0}),
    Clamp(TAU),
    Rotation(TAU, 0),
    DirectionOnly(TAU, {1: 1.0}),
    ReplayedSuppression(DOSES),
    ReplayedSuppression(DOSES, 0.1),
]
OTHERS: list[Policy] = [
    ALRR(TAU),
    *(ERSS(TAU, probability=1.0, direction=direction) for direction in DIRECTIONS),
    CAA({1: torch.ones(4)}),
]


def double(active: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """A layer that doubles what it is given."""
    return 2 * states


def one_row(length: float, step: int = 0) -> Rows:
    """A state of width 4 and this norm."""
    return Rows(torch.full((1, 4), length / 2), torch.tensor([0]), torch.tensor([step]))


def test_each_sees_what_the_ones_before_it_left() -> None:
    probe = Probe(FixedThreshold({1: 1.0, 2: 1.0}))
    for policies, seen in (((HIGH, probe), 2.0), ((probe, HIGH), 4.0)):
        both = Combined(policies)
        assert both.layers == (1, 2)
        running = both.start(1, 4, CPU)
        assert isinstance(running, RunningCombined)
        running.reset([0], ["a"])
        change = running.apply(one_row(4.0), 1, double)
        running.apply(one_row(7.0), 2, double)
        running.finish()
        torch.testing.assert_close(change.hidden, one_row(2.0).hidden)
        _, probing = running.parts[policies.index(probe)]
        assert isinstance(probing, RunningProbe)
        assert probing.summary([0]).total[0].tolist() == pytest.approx([seen, 7.0])


@dataclass(frozen=True)
class Retry(Stateless):
    """A kind of its own that spends one pass on every row: two recursions at one layer would conflict."""

    kind: ClassVar[str] = "retry"
    layers: tuple[int, ...] = (1,)

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        hidden = rerun(rows.eligible, rows.hidden)
        assert hidden is not None
        return Change(hidden, rows.eligible, torch.ones_like(rows.slot))


def test_extra_passes_add_up() -> None:
    twice = GatedRecursion(RandomGate({1: 1.0}), max_passes=2)
    for policies in ((twice, Retry()), (Retry(), twice)):
        running = Combined(policies).start(1, 4, CPU)
        running.reset([0], ["a"])
        change = running.apply(one_row(2.0), 1, double)
        assert change.passes is not None
        assert change.passes.tolist() == [3]
        torch.testing.assert_close(change.hidden, torch.full((1, 4), 8.0))


def test_entropies_and_extra_passes_go_through() -> None:
    uncertain = GatedRecursion(EntropyGate((1,), above=1.0), max_passes=2)
    addition = CAA({1: torch.ones(4)})
    running = Combined((addition, uncertain)).start(1, 4, CPU)
    running.reset([0], ["a"])
    for entropy, passes, value in ((0.5, 0, 2.0), (1.5, 2, 8.0)):
        change = running.apply(replace(one_row(2.0), entropy=torch.tensor([entropy])), 1, double)
        assert change.passes is not None
        assert change.passes.tolist() == [passes]
        torch.testing.assert_close(change.hidden, torch.full((1, 4), value))
    lone = Combined((addition, Probe(TAU))).start(1, 4, CPU)
    lone.reset([0], ["a"])
    assert lone.apply(one_row(2.0), 1, double).passes is None


def test_a_combination_of_one_does_what_the_one_does() -> None:
    """History included: reset, apply and finish reach it, and a new request starts anew."""
    policy = ERSS(TAU, probability=1.0, cooldown=1)
    alone, wrapped = policy.start(1, 4, CPU), Combined((policy,)).start(1, 4, CPU)
    generator = torch.Generator().manual_seed(0)
    acted = 0
    for name in ("a", "b"):
        for running in (alone, wrapped):
            running.reset([0], [name])
        for step in range(40):
            rows = Rows(2 * torch.randn(1, 4, generator=generator), torch.tensor([0]), torch.tensor([step]))
            one, other = (running.apply(rows, 1, double) for running in (alone, wrapped))
            assert torch.equal(one.hidden, other.hidden)
            assert torch.equal(one.triggered, other.triggered)
            acted += int(one.triggered)
            alone.finish()
            wrapped.finish()
    assert acted > 5


@pytest.mark.parametrize("suppression", SUPPRESSIONS, ids=lambda policy: type(policy).__name__)
def test_a_suppression_goes_with_a_probe_alone(suppression: Policy) -> None:
    for other in (*SUPPRESSIONS, *OTHERS):
        for pair in ((suppression, other), (other, suppression)):
            with pytest.raises(NormprobeError, match=r"do not conflict, got .* both at layers \[1\]"):
                Combined(pair)
    Combined((suppression, Probe(TAU), Probe(TAU)))


def test_two_of_a_kind_conflict_at_a_layer_only_and_two_kinds_do_not() -> None:
    there = FixedThreshold({2: 1.0})
    Combined((ALRR(TAU), ERSS(TAU)))
    Combined((ALRR(TAU), ALRR(there)))
    Combined((HIGH, ERSS(there)))
    for pair in ((ALRR(TAU), ALRR(TAU)), (ERSS(TAU), CAA({1: torch.ones(4)}))):
        with pytest.raises(NormprobeError, match=f"got {pair[0].kind} and {pair[0].kind} both") as error:
            Combined(pair)
        assert "\n" not in str(error.value)
    with pytest.raises(NormprobeError, match="at least one policy"):
        Combined(())


def test_a_combination_within_hides_no_conflict_and_makes_none() -> None:
    inner = Combined((Combined((HIGH,)), Probe(TAU)))
    for other in (ERSS(TAU), Clamp(TAU)):
        with pytest.raises(NormprobeError, match="got suppression and"):
            Combined((inner, other))
    outer = Combined((Combined((Probe(TAU),)), Combined((Probe(TAU), ALRR(TAU)))))
    assert [policy.kind for policy in outer.policies] == ["probe", "probe", "recursion"]


class HostTraffic(TorchDispatchMode):
    """Names the operations that read from the device, or bring numbers to it: each waits for it on CUDA."""

    WAITS = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").partition(".")[0]
        masks = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for indices in args[1:2]
            if isinstance(indices, list | tuple)
            for index in indices
        )
        if name in self.WAITS or masks:
            self.found.append(name)
        return function(*args, **kwargs or {})


@pytest.mark.parametrize(
    "policy",
    [*SUPPRESSIONS, *OTHERS, Combined((ALRR(TAU), ERSS(TAU), Probe(TAU)))],
    ids=lambda policy: type(policy).__name__,
)
def test_no_pass_waits_for_the_device(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a look costs something, all rows are computed: as on a GPU, so in a compiled graph.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    running = policy.start(1, 4, CPU)
    running.reset([0], ["a"])
    running.apply(one_row(4.0), 1, double)  # the first may make room
    running.finish()
    rows = one_row(4.0, 1)
    with HostTraffic() as traffic:
        running.apply(rows, 1, double)
        running.finish()
    assert traffic.found == []


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_the_measurement_would_see_it(waits: Callable[[torch.Tensor], object]) -> None:
    x = torch.ones(3)
    with HostTraffic() as traffic:
        waits(x)
    assert traffic.found
