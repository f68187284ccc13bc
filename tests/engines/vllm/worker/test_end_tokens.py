"""The pass too many after a request has ended."""

from dataclasses import dataclass

import numpy as np
import torch

from normprobe.engines.vllm.worker.eligible_rows import EligibleRows
from normprobe.engines.vllm.worker.end_tokens import EndTokens

CPU = torch.device("cpu")


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
