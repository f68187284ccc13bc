"""The uniform numbers that a request brings."""

from typing import Any

import numpy as np
import pytest

from normprobe.engines.vllm.keyed_draws import DRAWS, KeyedDraws
from normprobe.errors import NormprobeError


def test_numbers_arrive_as_they_were_drawn() -> None:
    uniform = np.random.default_rng(0).random(50)
    came = KeyedDraws.of({DRAWS: KeyedDraws(0.6, uniform).to_dict(), "other": 1})
    assert came is not None
    assert came.temperature == 0.6
    assert np.array_equal(came.uniform, uniform)
    assert KeyedDraws.of(None) is None
    assert KeyedDraws.of({"other": 1}) is None


GOOD = KeyedDraws(1.0, np.array([0.5])).to_dict()


@pytest.mark.parametrize(
    "given",
    [
        "text",
        {},
        GOOD | {"uniform": "no base64!"},
        GOOD | {"uniform": "AAAA"},
        GOOD | {"uniform": ""},
        GOOD | {"temperature": 0},
        GOOD | {"temperature": float("nan")},
        KeyedDraws(1.0, np.array([1.0])).to_dict(),
    ],
)
def test_what_are_no_draws_is_refused(given: Any) -> None:
    with pytest.raises(NormprobeError, match="expected draws"):
        KeyedDraws.of({DRAWS: given})
