"""Slots of active requests."""

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from normprobe.engines.vllm.worker.slots import Slots, external
from normprobe.policies.policy import Stateless
from normprobe.policies.rows import Change, Rerun, Rows

CPU = torch.device("cpu")


class Remembering(Stateless):
    layers = (1,)

    def __init__(self) -> None:
        self.held: dict[int, str] = {}

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.held |= dict(zip(slots, requests, strict=True))

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        return Change(rows.hidden, torch.zeros_like(rows.eligible))


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["x", "y", "free"])), max_size=60))
def test_slots_are_never_shared_and_never_lost(events: list[tuple[int, str]]) -> None:
    slots = Slots(lambda _: Remembering(), 10, 4, CPU, keep=("x", "z"))
    for number, what in events:
        name = f"r{number}"
        if what == "free":
            slots.free([name])
            assert name not in slots.active
        else:
            slots.take({name: what})
            held = slots.active[name]
            assert held.policy == what
            running = slots.running[what]
            assert isinstance(running, Remembering)
            assert running.held[held.slot] == name
        taken = [held.slot for held in slots.active.values()]
        assert sorted([*taken, *slots._free]) == list(range(10))
        assert {held.policy for held in slots.active.values()} <= set(slots.running)
        assert {"x", "z"} <= set(slots.running) <= {"x", "y", "z"}


def test_a_slot_keeps_while_others_come_and_go() -> None:
    slots = Slots(lambda _: Remembering(), 3, 4, CPU)
    slots.take({"a": "x", "b": "x"})
    mine = slots.active["a"]
    slots.free(["b", "never seen"])
    slots.take({"c": "y", "d": "x"})
    assert slots.active["a"] == mine
    slots.free(["c"])
    slots.take({"e": "x"})
    assert set(slots.running) == {"x"}
    slots.free(["a", "d", "e"])
    slots.take({})
    assert slots.running == slots.layers == {}


def test_a_request_is_known_by_the_name_its_sender_gave_it() -> None:
    assert external("cmpl-17-0-1a2b3c4d") == "cmpl-17-0"
    assert external("2_mine-1a2b3c4d") == "2_mine"
    assert external("mine") == "mine"
