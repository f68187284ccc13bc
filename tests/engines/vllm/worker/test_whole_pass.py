"""Policies in a graph of a whole decode step: recorded once, without a request, they do in every later step, of any
batch, what they do between pieces."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from policy_steps import ADAPTIVE, FIXED, LAYERS, WIDTH
from policy_steps import POLICIES as MANY
from recorded_graph import RecordedGraph

from normprobe.engines.vllm.worker.eligible_rows import EndTokens, PassLayout, eligible_rows
from normprobe.engines.vllm.worker.residual_stream import Site, SiteInPlace
from normprobe.engines.vllm.worker.slots import ActiveRequest
from normprobe.engines.vllm.worker.whole_pass import WholePass, fits_a_graph
from normprobe.policies import erss, ops
from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import RunningPolicy
from normprobe.policies.probe import Probe
from normprobe.policies.rows import ProbeSummary, Rows
from normprobe.policies.suppression import Clamp
from normprobe.policies.threshold import FixedThreshold

CPU = torch.device("cpu")
N_SLOTS, N_ROWS, VOCAB, END = 5, 6, 40, 7
RECURSION = {
    name: ALRR(threshold, blow_up=3.0, growth=0.05, damping=0.6)
    for name, threshold in (("fixed", FIXED), ("adaptive", ADAPTIVE))
}
POLICIES = {name: policy for name, policy in MANY.items() if not name.startswith(("recursion", "combined"))}
POLICIES |= {f"recursion {name}": policy for name, policy in RECURSION.items()}
POLICIES |= {
    f"combined {name}": Combined(
        (Probe(policy.threshold), policy, ERSS(policy.threshold, "at_peaks", 1, 0.9, 0, -0.2, 0.4))
    )
    for name, policy in RECURSION.items()
}
TOGETHER = [[*POLICIES][:6], [*POLICIES][6:], ["last layer", "recursion fixed", "probe adaptive"]]
POLICIES["last layer"] = Clamp(FixedThreshold({LAYERS[-1]: 15.0}))
BATCHES = [
    ["a", "b"],
    ["a", "b"],
    ["a", "plain", "b", "c"],  # requests come
    ["c", "a", "b", "plain"],  # in another order
    ["c", "a", "b"],
    ["c", "d", "b"],  # d in the slot and the row of a, with another prompt
    ["c", "d", "b"],
    ["plain"],
    ["d", "b"],
    ["d", "b", "e", "f", "plain"],
    ["f", "b", "e"],
]
SLOTS = {"a": 3, "b": 1, "c": 0, "d": 3, "e": 2, "f": 0}
PROMPTS = {"a": 4, "b": 9, "c": 5, "d": 6, "e": 11, "f": 3, "plain": 4}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a policy must not ask which rows it acts on."""
    for module in (ops, erss):
        monkeypatch.setattr(module, "rows_of", lambda mask: slice(None))


class Buffers:
    """What a graph reads and writes: tokens and positions by row, and by layer two halves and one more pass."""

    def __init__(self) -> None:
        self.tokens = torch.zeros(N_ROWS, dtype=torch.int32)
        self.positions = torch.zeros(N_ROWS, dtype=torch.int64)
        self.halves = {layer: [torch.zeros(N_ROWS, WIDTH) for _ in range(2)] for layer in LAYERS}
        self.again = {layer: torch.zeros(N_ROWS, WIDTH) for layer in LAYERS}

    def fill(self, layout: PassLayout, generator: torch.Generator) -> None:
        n = len(layout.requests)
        self.positions.random_(0, 50, generator=generator)
        self.positions[:n] = torch.from_numpy(layout.computed)
        self.tokens.random_(0, 20, generator=generator)
        for layer in LAYERS:
            size = 9 * torch.randn(N_ROWS, 1, generator=generator).mul(0.4).exp()
            for half in self.halves[layer]:
                half.copy_(torch.randn(N_ROWS, WIDTH, generator=generator) * size)
            self.again[layer].copy_(1.1 * sum(self.halves[layer]))


def layout_of(step: int) -> PassLayout:
    """One token of each request."""
    requests = BATCHES[step]
    computed = [PROMPTS[name] - 1 + sum(name in batch for batch in BATCHES[:step]) for name in requests]
    prompt = [PROMPTS[name] for name in requests]
    return PassLayout(requests, np.arange(len(requests) + 1), np.array(computed), np.array(prompt))


def ends() -> EndTokens:
    class Sampling:
        eos_token_id, stop_token_ids = END, None

    tokens = EndTokens(N_SLOTS, VOCAB, CPU)
    tokens.set(dict.fromkeys(range(N_SLOTS), Sampling()))
    return tokens


def in_pieces(
    policies: dict[str, RunningPolicy],
    layout: PassLayout,
    active: dict[str, ActiveRequest],
    buffers: Buffers,
    masking: EndTokens,
) -> dict[int, torch.Tensor]:
    """The states of each layer, as the hooks between pieces make them (`RunnerHooks`)."""
    after = {layer: buffers.halves[layer][0] + buffers.halves[layer][1] for layer in LAYERS}
    for text, ranks in eligible_rows(layout, active, CPU).items():
        running, (eligible,) = policies[text], (masking.masked(rows, buffers.tokens) for rows in ranks)
        for layer in POLICIES[text].layers:
            site, again = Site((*buffers.halves[layer],)), buffers.again[layer][eligible.index]
            rows = Rows(site.at(eligible.index), eligible.slot, eligible.step)

            def rerun(
                active: torch.Tensor, states: torch.Tensor, rows: Rows = rows, again: Any = again
            ) -> Any:
                assert states is rows.hidden, "the graph knows one more pass over what the layer gave"
                return again

            change = running.apply(rows, layer, rerun)
            after[layer][eligible.index] = sum(site.changed(eligible.index, change).halves)[eligible.index]
        running.finish()
    return after


def started(names: list[str]) -> dict[str, RunningPolicy]:
    return {name: POLICIES[name].start(N_SLOTS, WIDTH, CPU) for name in names}


def recorded(running: dict[str, RunningPolicy], buffers: Buffers) -> tuple[WholePass, RecordedGraph]:
    layers = {name: POLICIES[name].layers for name in running}
    state = torch.zeros(1, WIDTH)
    whole = WholePass(running, layers, N_ROWS, state, buffers.tokens, buffers.positions, ends())
    graph = RecordedGraph()
    with graph:
        for layer in LAYERS:
            whole.apply(SiteInPlace((*buffers.halves[layer],)), layer, buffers.again[layer])
    return whole, graph


@pytest.mark.parametrize("names", [[name] for name in POLICIES] + TOGETHER, ids="/".join)
def test_a_graph_without_requests_does_in_every_step_what_is_done_between_pieces(names: list[str]) -> None:
    """Each new request has the next of the policies."""
    buffers, masking, generator = Buffers(), ends(), torch.Generator().manual_seed(1)
    assert all(fits_a_graph(POLICIES[name]) for name in names)
    buffers.fill(layout_of(0), generator)
    inside, outside, asked = started(names), started(names), itertools.cycle(names)
    whole, graph = recorded(inside, buffers)
    active, acted = dict[str, ActiveRequest](), 0
    for step, requests in enumerate(BATCHES):
        layout = layout_of(step)
        active = {name: one for name, one in active.items() if any(name in batch for batch in BATCHES[step:])}
        for new in [name for name in requests if name in SLOTS and name not in active]:
            active[new] = ActiveRequest(SLOTS[new], next(asked))
            for running in (inside, outside):
                running[active[new].policy].reset([SLOTS[new]], [new])
        buffers.fill(layout, generator)
        before = {layer: buffers.halves[layer][0] + buffers.halves[layer][1] for layer in LAYERS}
        wanted = in_pieces(outside, layout, active, buffers, masking)
        whole.place(layout, active)
        graph.replay()
        for layer in LAYERS:
            found = buffers.halves[layer][0] + buffers.halves[layer][1]
            torch.testing.assert_close(found, wanted[layer])
            idle = (wanted[layer] == before[layer]).all(dim=1)
            assert torch.equal(found[idle], before[layer][idle])
            acted += int((~idle).sum())
    for name in names:
        check_summary(inside[name].summary([*range(N_SLOTS)]), outside[name].summary([*range(N_SLOTS)]))
    assert acted > 2 or names[0].startswith("probe")


def check_summary(found: ProbeSummary | None, wanted: ProbeSummary | None) -> None:
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        torch.testing.assert_close(vars(found), vars(wanted), equal_nan=True)
        assert found.n_tokens.max() > 0


def test_what_a_graph_cannot_hold_is_told() -> None:
    steering = ERSS(FIXED, "at_peaks", 1, 0.9, 0, -0.2, 0.4)
    assert not fits_a_graph(ALRR(FIXED, max_passes=2))
    assert fits_a_graph(Combined((Probe(FIXED), ALRR(FIXED), steering)))
    assert not fits_a_graph(Combined((steering, ALRR(FIXED)))), "the graph runs a layer on what it gave alone"
    elsewhere = ERSS(FixedThreshold({1: 9.0}), "at_peaks", 1, 0.9, 0, -0.2, 0.4)
    assert fits_a_graph(Combined((elsewhere, ALRR(FIXED))))


def test_a_pass_over_more_tokens_than_a_step_has_is_left_alone() -> None:
    whole, _ = recorded(started(["suppression fixed"]), Buffers())
    state = torch.full((N_ROWS + 1, WIDTH), 100.0)
    whole.apply(SiteInPlace((state,)), LAYERS[0], None)
    assert torch.equal(state, torch.full_like(state, 100.0))


def test_what_no_capture_allows_is_refused() -> None:
    with pytest.raises(AssertionError, match="waits for the device"), RecordedGraph():
        bool(torch.ones(3).any())
    with pytest.raises(AssertionError, match="takes numbers of the host"), RecordedGraph():
        torch.tensor([1.0])
