"""What policies did, by slot."""

import torch

from normprobe.engines.vllm.worker.event_log import EventLog
from normprobe.policies.rows import Change, Rows


def act(log: EventLog, slots: list[int], step: int, layer: int, changed: list[float]) -> None:
    """A call that changes each state by so much; −1: not at all. Two extra passes each."""
    n = len(slots)
    rows = Rows(torch.zeros(n, 2), torch.tensor(slots), torch.full((n,), step))
    delta = torch.tensor(changed)
    hidden = torch.stack([delta.clamp_min(0), torch.zeros(n)], dim=1)
    log.add(rows, layer, Change(hidden, delta >= 0, torch.full((n,), 2)))


def test_only_the_requests_that_ask_get_events_and_only_their_own() -> None:
    log = EventLog()
    assert not log
    log.update({0, 1}, {0, 1}, {1})
    assert log
    act(log, [1, 0], 0, 5, [3.0, 4.0])
    act(log, [1, 0], 0, 7, [-1.0, 4.0])
    act(log, [0, 1], 1, 5, [1.0, 0.0])
    assert log.of(0) is None
    assert log.of(1) == {"5": {"step": [0, 1], "delta": [3.0, 0.0], "passes": [2, 2]}}
    act(log, [1], 2, 5, [6.0])
    log.update({0, 1}, {1}, {1})  # another request, which starts anew
    act(log, [1], 0, 7, [2.0])
    assert log.of(1) == {"7": {"step": [0], "delta": [2.0], "passes": [2]}}
    log.update({0}, set(), set())
    assert not log
