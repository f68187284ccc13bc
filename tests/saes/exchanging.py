"""One of two processes of test_exchange.py, with torchrun's variables set: exchanges, then the second dies."""

import os
import sys

import numpy as np
import torch

from normprobe.console import run_main
from normprobe.ranks import Rank
from normprobe.saes.exchange import connected, exchange, least

N_LAYERS, N_ROWS = 3, 50


def main(argv: list[str]) -> None:
    rank = Rank.of_environment()
    whole = torch.randn(N_LAYERS, N_ROWS, 6, generator=torch.Generator().manual_seed(0))
    with connected(rank):
        for share, dtype in (
            (0.3, torch.float32),
            (0.0, torch.bfloat16),
        ):  # the second reads few rows, and none
            reader = np.random.default_rng(0).random(N_ROWS) < share
            shares = [np.flatnonzero(~reader), np.flatnonzero(reader)]
            mine = whole[:, shares[rank.number]].to(dtype)
            found = exchange(mine, shares, rank, torch.device("cpu"))
            assert torch.equal(found, whole[rank.own(range(N_LAYERS))].to(dtype))
        assert least(7 - rank.number, rank) == 6
        print("exchanged", flush=True)
        if rank.number == 1:
            os._exit(9)
        least(0, rank)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
