import json

import numpy as np
import pytest

from normprobe.claims.evidence import Control, Decision, Evidence
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
    missing = Decision(float("nan"), (float("nan"), float("nan")), 0.1, "", ("untrained twin",), float("nan"))
    return Evidence(
        claim="c", statement="s", verdict=verdict, rule="r", estimate=float(np.float32(0.5)), unit="u",
        interval=(0.1, 0.9), n=7, n_unit="problems", controls=(control,), decision=missing, seed=3, note="",
    )  # fmt: skip


def test_evidence_is_plain_json_even_where_a_number_is_missing() -> None:
    written = json.loads(json.dumps(evidence("inconclusive").to_dict(), allow_nan=False))
    assert written["controls"] == [{"name": "untrained twin", "estimate": None, "interval": [0.0, None]}]
    assert written["interval"] == [0.1, 0.9]
    assert written["decision"] == {
        "margin": None, "interval": [None, None], "smallest_effect": 0.1, "strongest": "",
        "missing": ["untrained twin"], "p": None,
    }  # fmt: skip


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a verdict"):
        evidence("proved")
