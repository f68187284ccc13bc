import json

import numpy as np
import pytest

from normprobe.claims.evidence import Control, Evidence
from normprobe.stats.verdict import decide


@pytest.mark.parametrize(
    "interval, verdict",
    [
        ((0.11, 0.5), "supported"),
        ((0.1, 0.5), "inconclusive"),
        ((-0.5, 0.09), "not supported"),
        ((0.0, 0.2), "inconclusive"),
        ((float("nan"), 0.5), "inconclusive"),
        ((0.2, float("inf")), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_the_rule(interval: tuple[float, float] | None, verdict: str) -> None:
    assert decide(interval, 0.1) == verdict


def evidence(verdict: str) -> Evidence:
    control = Control("untrained twin", float("nan"), (0.0, float("inf")))
    return Evidence(
        "c", "s", verdict, "r", float(np.float32(0.5)), "u", (0.1, 0.9), 7, "problems", (control,), 3, ""
    )


def test_evidence_is_plain_json_even_where_a_number_is_missing() -> None:
    written = json.loads(json.dumps(evidence("inconclusive").to_dict(), allow_nan=False))
    assert written["controls"] == [{"name": "untrained twin", "estimate": None, "interval": [0.0, None]}]
    assert written["interval"] == [0.1, 0.9]


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a verdict"):
        evidence("proved")
