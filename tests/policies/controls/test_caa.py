"""Contrastive activation addition: each eligible row moves by its layer's vector."""

import pytest
import torch
from rows_fixture import never

from normprobe.errors import NormprobeError
from normprobe.policies.controls.caa import CAA
from normprobe.policies.rows import Rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_addition_moves_every_eligible_row_by_its_vector(dtype: torch.dtype) -> None:
    vector = torch.tensor([1.0, -2.0, 0.0, 0.5])
    hidden = torch.randn(4, 4, generator=torch.Generator().manual_seed(6)).to(dtype)
    rows = Rows(hidden, torch.tensor([0, 1, 2, -1]), torch.tensor([0, 3, -1, -1]))
    running = CAA({1: vector, 2: -vector}, beta=2.0).start(3, 4, CPU)
    running.reset([0, 1, 2], ["a", "b", "c"])
    for layer, sign in ((1, 2.0), (2, -2.0)):
        change = running.apply(rows, layer, never)
        assert change.triggered.tolist() == [True, True, False, False]
        expected = (hidden.float() + sign * vector).to(dtype)
        assert torch.equal(change.hidden[:2], expected[:2])
        assert torch.equal(change.hidden[2:], hidden[2:])


def test_an_addition_that_makes_no_sense_is_refused() -> None:
    good = torch.ones(4)
    for make, message in (
        (lambda: CAA({}), "a vector for at least one layer"),
        (lambda: CAA({1: good}, float("nan")), "a finite beta, got nan"),
        (lambda: CAA({1: good, 2: good / 0}), r"NaN or infinity at layers \[2\]"),
        (lambda: CAA({1: good}).start(1, 5, CPU), r"width 5, got \{1: 4\}"),
    ):
        with pytest.raises(NormprobeError, match=message):
            make()
