"""Direction only: the same direction, at an ordinary norm."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_fixture import apply, random_rows, seeds

from normprobe.policies.controls.direction_only import DirectionOnly
from normprobe.policies.rows import Rows, norms
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold


@settings(deadline=None)
@given(seeds, st.floats(0.1, 20), st.floats(0.01, 100))
def test_direction_only_keeps_the_direction_and_sets_the_norm(
    seed: int, threshold: float, ordinary: float
) -> None:
    rows = random_rows(seed)
    tau = FixedThreshold({3: threshold})
    hidden, chosen = apply(DirectionOnly(tau, {3: ordinary}), rows, 3)
    assert torch.equal(chosen, apply(Suppression(tau), rows, 3)[1])
    assert torch.equal(hidden[~chosen], rows.hidden[~chosen])
    cosine = torch.nn.functional.cosine_similarity(hidden, rows.hidden)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        norms(hidden)[chosen], torch.full((int(chosen.sum()),), ordinary), rtol=1e-5, atol=0
    )


def test_a_zero_state_has_no_direction_and_stays() -> None:
    rows = Rows(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0]))
    hidden, chosen = apply(DirectionOnly(FixedThreshold({0: 1.0}), {0: 2.0}), rows, 0, ["a"])
    assert not chosen.any()
    assert torch.equal(hidden, rows.hidden)
