"""The probe: changes nothing, counts what a slow loop counts, in memory that does not grow."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.policies.probe import BLOCKS, Probe, RunningProbe
from normprobe.policies.rows import ProbeSummary, Rows, norms
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

LAYERS = (2, 5)
TAU = {2: 2.0, 5: 3.0}
CPU = torch.device("cpu")
FIXED = FixedThreshold(TAU)
ADAPTIVE = AdaptiveThreshold(LAYERS, (0.1, 0.1), (50.0, 50.0), ((1 / 128,) * 128,) * 2)
seeds = st.integers(0, 2**31 - 1)
thresholds = st.sampled_from([FIXED, ADAPTIVE])


def no_rerun(active, states):
    raise AssertionError("a probe needs no extra pass")


def started(threshold=FIXED, n_slots: int = 4, max_tokens: int = 0) -> RunningProbe:
    probing = Probe(threshold, max_tokens).start(n_slots, 3, CPU)
    assert isinstance(probing, RunningProbe)
    probing.reset(range(n_slots), [f"request {slot}" for slot in range(n_slots)])
    return probing


def states_of(seed: int, n_tokens: int) -> torch.Tensor:
    """States of one request [layer, token, 3], norms that vary a lot."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(len(LAYERS), n_tokens, 1, generator=generator).exp()
    return torch.randn(len(LAYERS), n_tokens, 3, generator=generator) * size


def feed(probing: RunningProbe, slots: list[int], steps: list[int], hidden: torch.Tensor) -> None:
    """One pass: hidden [layer, row, 3]."""
    for i, layer in enumerate(LAYERS):
        rows = Rows(hidden[i], torch.tensor(slots), torch.tensor(steps))
        probing.apply(rows, layer, no_rerun)
    probing.finish()


def watched(states: torch.Tensor, slot: int = 1, **how) -> ProbeSummary:
    """What a probe sees of one request that is alone."""
    probing = started(**how)
    for step in range(states.shape[1]):
        feed(probing, [slot], [step], states[:, step : step + 1])
    return probing.summary([slot])


def same(one: ProbeSummary, other: ProbeSummary) -> bool:
    return all(
        torch.equal(getattr(one, name).nan_to_num(-1.0), getattr(other, name).nan_to_num(-1.0))
        for name in ProbeSummary.__dataclass_fields__
        if name != "layers"
    )


@given(seeds, st.integers(1, 20), st.integers(0, 25))
def test_sums_are_those_of_a_loop(seed: int, n_tokens: int, max_tokens: int) -> None:
    states = states_of(seed, n_tokens)
    seen = watched(states, max_tokens=max_tokens)
    assert seen.n_tokens.tolist() == [n_tokens]
    assert seen.norm.shape == (1, 2, max_tokens)
    for i, layer in enumerate(LAYERS):
        norm = [float(norms(state[None])) for state in states[i]]
        assert float(seen.total[0, i]) == pytest.approx(math.fsum(norm), rel=1e-6)
        excess = math.fsum(max(0.0, value - TAU[layer]) for value in norm)
        assert float(seen.excess[0, i]) == pytest.approx(excess, rel=1e-5, abs=1e-6)
        assert int(seen.above[0, i]) == sum(value > TAU[layer] for value in norm)
        assert float(seen.largest[0, i]) == max(norm)
        assert seen.norm[0, i, :n_tokens].tolist() == norm[:max_tokens]
        assert seen.norm[0, i, n_tokens:].isnan().all()


def test_an_adaptive_threshold_is_the_one_of_before_each_pass() -> None:
    states = states_of(0, 60)
    reference = ADAPTIVE.start(1, CPU)
    slot, eligible = torch.tensor([0]), torch.tensor([True])
    excess, above = torch.zeros(2, dtype=torch.float64), [0, 0]
    for step in range(60):
        for i, layer in enumerate(LAYERS):
            norm, tau = norms(states[i, step : step + 1]), reference.tau(layer, slot)
            excess[i] += (norm - tau).clamp_min(0)[0]
            above[i] += int(norm > tau)
            reference.observe(layer, slot, norm, eligible)
        reference.finish()
    seen = watched(states, threshold=ADAPTIVE)
    assert seen.above.tolist() == [above]
    assert sum(above) > 0
    torch.testing.assert_close(seen.excess[0], excess.float())


@given(seeds, thresholds, st.sampled_from([torch.float32, torch.bfloat16]))
def test_nothing_changes(seed: int, threshold, dtype: torch.dtype) -> None:
    hidden = states_of(seed, 6)[0].to(dtype)
    rows = Rows(hidden, torch.tensor([0, 1, 2, 3, -1, -1]), torch.tensor([0, 4, -2, 1, -1, -1]))
    change = started(threshold).apply(rows, LAYERS[0], no_rerun)
    assert torch.equal(change.hidden, hidden)
    assert not change.triggered.any()
    assert change.passes is None


@given(seeds, thresholds, st.integers(1, 12))
def test_other_requests_padding_and_prompts_leave_no_trace(seed: int, threshold, n_tokens: int) -> None:
    states = states_of(seed, n_tokens)
    alone = watched(states, threshold=threshold, max_tokens=5)
    probing = started(threshold, max_tokens=5)
    for step in range(n_tokens):
        others = states_of(seed + step + 1, 5)
        # Slot 3 is another request, slot 0 still in its prompt, slot −1 padding; slot 1's own prompt comes first.
        if step == 0:
            feed(probing, [1, 1], [-2, -1], others[:, :2])
        hidden = torch.cat([others[:, :2], states[:, step : step + 1], others[:, 2:]], dim=1)
        feed(probing, [3, 0, 1, -1, -1, -1], [step, -3, step, -1, -1, -1], hidden)
    assert same(probing.summary([1]), alone)


def test_a_reset_slot_is_as_new_and_the_others_stay() -> None:
    first, second, beside = states_of(1, 150), states_of(2, 9), states_of(3, 159)
    probing = started(max_tokens=7)
    for step in range(150):
        feed(probing, [1, 2], [step, step], torch.stack([first[:, step], beside[:, step]], dim=1))
    probing.reset([1], ["the next request"])
    for step in range(9):
        feed(
            probing, [2, 1], [150 + step, step], torch.stack([beside[:, 150 + step], second[:, step]], dim=1)
        )
    assert same(probing.summary([1]), watched(second, max_tokens=7))
    assert same(probing.summary([2]), watched(beside, max_tokens=7))


def test_summary_takes_the_slots_in_the_order_given() -> None:
    probing = started()
    feed(probing, [0, 1, 2], [0, 0, 0], states_of(0, 3))
    feed(probing, [2], [1], states_of(1, 1))
    assert probing.summary([2, 0, 3]).n_tokens.tolist() == [2, 1, 0]
    assert torch.equal(probing.summary([2, 0]).total[1], probing.summary([0]).total[0])


@pytest.mark.parametrize("n_tokens", [1, 2, 127, 128, 129, 255, 256, 257, 700, 2000])
def test_last_parts_are_exact_when_short_and_within_the_stated_error_when_long(n_tokens: int) -> None:
    states = states_of(n_tokens, n_tokens)
    seen = watched(states, slot=0)
    width = int(seen.width)
    assert width == 1 if n_tokens < BLOCKS else n_tokens / BLOCKS < width <= 2 * n_tokens / BLOCKS
    norm = norms(states.flatten(0, 1)).unflatten(0, (2, n_tokens))
    excess = (norm - torch.tensor([[TAU[layer]] for layer in LAYERS])).clamp_min(0)
    for n_last in {0, 1, round(0.3 * n_tokens), round(n_tokens / 3), n_tokens - 1, n_tokens}:
        begin = (n_tokens - n_last) // width * width  # of the block that the last part begins in
        for got, values in zip(seen.last(torch.tensor([n_last])), (norm, excess), strict=True):
            wanted = values[:, n_tokens - n_last :].sum(dim=1)
            block = values[:, begin : begin + width]
            error = (0.0 if width == 1 or not n_last else width / 4) * (
                (block.amax(dim=1) - block.amin(dim=1)) if block.shape[1] else 0.0
            )
            assert ((got[0] - wanted).abs() <= error + 1e-4 * (1 + wanted)).all()


def test_an_engine_that_holds_one_of_the_layers_gets_its_part() -> None:
    states = states_of(0, 200)
    probing = started()
    for step in range(200):
        rows = Rows(states[1, step : step + 1], torch.tensor([1]), torch.tensor([step]))
        probing.apply(rows, LAYERS[1], no_rerun)
        probing.finish()
    part, whole = probing.summary([1]), watched(states)
    n_last = torch.tensor([60])
    assert part.n_tokens.tolist() == [200]
    assert torch.equal(part.last(n_last)[0][:, 1], whole.last(n_last)[0][:, 1])
    assert not part.last(n_last)[0][:, 0].any()


def test_memory_does_not_grow_with_the_response() -> None:
    probing = started()
    kept = [value.shape for value in vars(probing).values() if isinstance(value, torch.Tensor)]
    for step in range(3 * BLOCKS):
        feed(probing, [0], [step], torch.ones(2, 1, 3))
    assert [value.shape for value in vars(probing).values() if isinstance(value, torch.Tensor)] == kept
    seen = probing.summary([0])
    assert float(seen.total_by_block.sum()) == pytest.approx(float(seen.total.sum()))


def test_an_infinite_threshold_records_norms_alone() -> None:
    seen = watched(states_of(0, 5), threshold=FixedThreshold(dict.fromkeys(LAYERS, math.inf)))
    assert not seen.excess.any()
    assert not seen.above.any()
    assert (seen.total > 0).all()


@pytest.mark.parametrize("threshold", [FIXED, ADAPTIVE])
def test_nothing_waits_for_the_device(threshold) -> None:
    """A tensor of the meta device has a shape and no values: whatever would read one fails."""
    meta = torch.device("meta")
    probing = RunningProbe(Probe(threshold, 3), 4, meta)
    rows = Rows(
        torch.ones(2, 3, device=meta), torch.zeros(2, device=meta).long(), torch.zeros(2, device=meta).long()
    )
    for layer in LAYERS:
        probing.apply(rows, layer, no_rerun)
    probing.finish()
    with pytest.raises(NotImplementedError):
        probing.summary([0])


def test_a_negative_trace_is_refused() -> None:
    with pytest.raises(NormprobeError, match="max_tokens ≥ 0, got -1"):
        Probe(FIXED, -1)
