"""The key of the uniform numbers that a request names."""

from typing import Any

import numpy as np
import pytest

from normprobe.engines.base import Draws
from normprobe.engines.vllm.keyed_draws import DRAWS, MOST_NUMBERS, KeyedDraws
from normprobe.errors import NormprobeError


def test_the_numbers_are_those_that_the_engine_would_draw() -> None:
    draws = Draws(lambda name: [7, 0, len(name)])
    came = KeyedDraws.of({DRAWS: KeyedDraws(0.6, tuple(draws.key("name"))).to_dict(), "other": 1})
    assert came is not None
    assert came.temperature == 0.6
    assert np.array_equal(came.uniform(50), draws("name", 50))
    assert np.array_equal(came.uniform(50)[:20], draws("name", 20))
    assert not np.array_equal(came.uniform(50), draws("another", 50))
    assert KeyedDraws.of(None) is None
    assert KeyedDraws.of({"other": 1}) is None


GOOD = KeyedDraws(1.0, (1, 2)).to_dict()


@pytest.mark.parametrize(
    "given",
    [
        "text",
        {},
        *(
            GOOD | {"key": key}
            for key in ([], "12", 12, [-1], [0.5], [True], [2**63], [0] * (MOST_NUMBERS + 1))
        ),
        *(GOOD | {"temperature": value} for value in (0, "much", float("nan"), float("inf"), 10**400)),
    ],
)
def test_what_are_no_draws_is_refused(given: Any) -> None:
    with pytest.raises(NormprobeError, match="expected draws"):
        KeyedDraws.of({DRAWS: given})
