"""The rows of a pass on which policies act."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.engines.vllm.worker.eligible_rows import (
    EligibleRows,
    EndTokens,
    PassLayout,
    RowsInTurn,
    eligible_rows,
)
from normprobe.engines.vllm.worker.slots import ActiveRequest

CPU = torch.device("cpu")


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(1, 6), st.sampled_from(["", "a", "b"])),
        min_size=1,
        max_size=8,
    )
)
def test_every_eligible_row_is_placed_once_in_the_order_of_its_request(
    requests: list[tuple[int, int, int, str]],
) -> None:
    """Against a loop over tokens. (prompt, computed before, scheduled now, policy) by request."""
    prompt, computed, scheduled, policies = (list(part) for part in zip(*requests, strict=True))
    names = [f"r{i}" for i in range(len(requests))]
    held = {
        name: ActiveRequest(90 - i, policy)
        for i, (name, policy) in enumerate(zip(names, policies, strict=True))
        if policy
    }
    start = np.concatenate([[0], np.cumsum(scheduled)])
    expected: dict[str, list[tuple[int, int, int, int, int]]] = {}
    for i, name in enumerate(names):
        for token in range(scheduled[i]):
            position = computed[i] + token
            if name in held and position >= prompt[i] - 1:
                row = (int(start[i]) + token, held[name].slot, position - prompt[i] + 1, i, position)
                expected.setdefault(policies[i], []).append(row)
    placed = eligible_rows(PassLayout(names, start, np.array(computed), np.array(prompt)), held, CPU)
    assert set(placed) == set(expected)
    for policy, ranks in placed.items():
        rows = [
            list(
                zip(
                    *(part.tolist() for part in (p.index, p.slot, p.step, p.request, p.position)), strict=True
                )
            )
            for p in ranks
        ]
        assert sorted(row for rank in rows for row in rank) == sorted(expected[policy])
        for rank in rows:
            assert len({slot for _, slot, *_ in rank}) == len(rank)
            assert rank == sorted(rank)
        for slot in {slot for _, slot, *_ in expected[policy]}:
            steps = [step for rank in rows for _, at, step, *_ in rank if at == slot]
            assert steps == sorted(steps)


def as_lists(placed: dict[str, list[EligibleRows]]) -> dict[str, list[tuple[list[int], ...]]]:
    return {
        policy: [
            tuple(part.tolist() for part in (one.index, one.slot, one.step, one.request, one.position))
            for one in ranks
        ]
        for policy, ranks in placed.items()
    }


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["", "a", "b"]), st.integers(0, 3)),
        min_size=1,
        max_size=4,
    ),
    st.lists(
        st.sampled_from(
            [*["step"] * 4, "chunk", "preempt", "leave", "exchange", "other slot", "other prompt"]
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_rows_in_turn_are_those_of_each_pass_alone(
    requests: list[tuple[int, str, int]], events: list[str], random: Random
) -> None:
    """Batches that go on, whose requests take a part of their prompt, start again, leave or change places."""
    names = [f"r{i}" for i in range(len(requests))]
    prompt = {name: given[0] for name, given in zip(names, requests, strict=True)}
    computed = {name: given[2] for name, given in zip(names, requests, strict=True)}
    held = {
        name: ActiveRequest(i, policy)
        for i, (name, (_, policy, _)) in enumerate(zip(names, requests, strict=True))
        if policy
    }
    # The memory of the runner, written anew for each pass.
    start, done, length = np.zeros(len(names) + 1, int), np.zeros(len(names), int), np.zeros(len(names), int)
    in_turn = RowsInTurn(CPU)
    for event in events:
        scheduled = dict.fromkeys(names, 1)
        one = random.choice(names)
        if event == "chunk":
            scheduled[one] = 3
        elif event == "preempt":
            computed[one] = 0
        elif event == "leave" and len(names) > 1:
            names.remove(one)
            held.pop(one, None)
        elif event == "exchange":
            names.reverse()
        elif (
            event == "other prompt"
        ):  # the slot has passed to another request, while passes were whole graphs
            prompt[one] = random.randint(1, 4)
        elif event == "other slot" and one in held:
            held[one] = ActiveRequest(held[one].slot + 10, held[one].policy)
        n = len(names)
        start[1 : n + 1] = np.cumsum([scheduled[name] for name in names])
        done[:n], length[:n] = [computed[name] for name in names], [prompt[name] for name in names]
        layout = PassLayout(names, start[: n + 1], done[:n], length[:n])
        assert as_lists(in_turn.of(layout, held)) == as_lists(eligible_rows(layout, held, CPU))
        for name in names:
            computed[name] += scheduled[name]


def test_a_decode_step_copies_nothing_to_the_device() -> None:
    held = {"a": ActiveRequest(1, "x"), "c": ActiveRequest(0, "y")}
    in_turn = RowsInTurn(CPU)

    computed = np.zeros(3, int)  # the runner's memory, written anew for each pass

    def step(*done: int) -> dict[str, list[EligibleRows]]:
        computed[:] = done
        return in_turn.of(PassLayout(["a", "b", "c"], np.arange(4), computed, np.array([2, 2, 2])), held)

    first, second, other = step(2, 3, 4), step(3, 4, 5), step(9, 5, 6)
    assert second["x"][0].index is first["x"][0].index
    assert second["x"][0].slot is first["x"][0].slot
    assert (first["x"][0].step.tolist(), second["x"][0].step.tolist()) == ([1], [2])
    assert other["x"][0].index is not second["x"][0].index


@dataclass
class Parameters:
    eos_token_id: int | None = None
    stop_token_ids: list[int] | None = None


def test_a_pass_after_the_end_of_a_request_does_not_count() -> None:
    stops = EndTokens(4, 12, CPU)
    stops.set({0: Parameters(3), 1: Parameters(3, [7, 9, 11, 12, 10**9])})  # some not of this vocabulary
    stops.set({2: Parameters()})  # ignore_eos
    tokens = torch.tensor([3, 3, 9, 5, 3, 3, 11])
    slot, step = torch.tensor([0, 1, 1, 1, 2, 0, 1]), torch.tensor([4, 1, 2, 3, 5, 0, 6])
    rows = EligibleRows(torch.arange(7), slot, step, np.zeros(7, int), np.zeros(7, int))
    # The last but one is a prompt that ends in the token, as chat templates do.
    assert stops.masked(rows, tokens).step.tolist() == [-1, -1, -1, 3, 5, 0, -1]
    assert (
        stops.masked(rows, torch.full((7,), 10**6)).step.tolist()[0] == 4
    )  # a placeholder of another modality
    stops.set({0: Parameters(8)})  # the slot's next request
    assert stops.masked(rows, tokens).step.tolist() == [4, -1, -1, 3, 5, 0, -1]
