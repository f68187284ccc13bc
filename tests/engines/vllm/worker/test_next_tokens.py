"""What is done with the logits of a pass, on a model that only has logits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from normprobe.engines.inverse_cdf import inverse_cdf, output_entropy
from normprobe.engines.vllm.keyed_draws import DRAWS, KeyedDraws
from normprobe.engines.vllm.worker.eligible_rows import EligibleRows, PassLayout
from normprobe.engines.vllm.worker.next_tokens import LogitsHook

CPU = torch.device("cpu")
DRAWS_OF_FOUR = KeyedDraws(0.5, (3,))
UNIFORM = DRAWS_OF_FOUR.uniform(4)


def hooked(logits: torch.Tensor) -> tuple[Any, LogitsHook]:
    model = SimpleNamespace(compute_logits=lambda: logits.clone())
    return model, LogitsHook(model, 16, CPU)


def parameters(draws: KeyedDraws | None) -> Any:
    return SimpleNamespace(extra_args=None if draws is None else {DRAWS: draws.to_dict()}, max_tokens=4)


def layout(requests: list[str], computed: list[int], scheduled: list[int], prompt: list[int]) -> PassLayout:
    start = np.concatenate([[0], np.cumsum(scheduled)])
    return PassLayout(requests, start, np.array(computed), np.array(prompt))


def test_a_request_with_draws_is_left_the_one_token_that_its_number_stands_for() -> None:
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    model, hook = hooked(logits)
    hook.start({"drawn": parameters(DRAWS_OF_FOUR), "greedy": parameters(None)}, ())
    hook.start({"reading": parameters(DRAWS_OF_FOUR)}, ())
    hook.begin(layout(["greedy", "drawn", "reading"], [4, 5, 0], [1, 1, 2], [4, 4, 5]))
    found = model.compute_logits()
    # Its prompt of 4 and one token more were read: the third token comes next, by the third number.
    chosen = inverse_cdf(logits[1:2] / 0.5, torch.tensor([UNIFORM[2]]))
    assert torch.equal(found[1].argmax(), chosen[0])
    assert found[1].isfinite().sum() == 1
    assert torch.equal(found[[0, 2]], logits[[0, 2]])  # a prompt that is not read to its end draws nothing
    assert torch.equal(model.compute_logits(), logits)  # not of a pass
    hook.forget(["drawn"])
    hook.begin(layout(["greedy", "drawn", "reading"], [4, 5, 0], [1, 1, 2], [4, 4, 5]))
    assert torch.equal(model.compute_logits(), logits)


def test_entropies_are_those_of_the_distributions_that_tokens_were_drawn_from() -> None:
    """Also of a request that computes all of its tokens again."""
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    model, hook = hooked(logits)
    names = [f"r{i}" for i in range(20)]
    hook.start({name: parameters(None) for name in names}, names)
    for computed in (3, 4):
        hook.begin(layout(["r19", "other"], [computed, 3], [1, 1], [4, 4]))
        model.compute_logits()
        logits[:] = logits.flip(1) * 2
    again = layout(["r19"], [0], [6], [4])
    position = np.array([3, 4, 5])
    rows = EligibleRows(*(torch.zeros(3, dtype=torch.int64),) * 3, np.zeros(3, int), position)
    first, second = output_entropy(torch.stack([logits[0] / 4, logits[0].flip(0) / 2]))
    torch.testing.assert_close(hook.entropies.of(rows, again), torch.stack([0 * first, first, second]))
