"""Evidence as JSON: what is not finite is null, and what was written is read as it was."""

import json

import numpy as np
import pytest

from normprobe.claims.evidence import Control, Decision, Evidence


def evidence(verdict: str) -> Evidence:
    control = Control("whole", "untrained twin", True, float("nan"), (0.0, float("inf")))
    nothing = (float("nan"), float("nan"))
    missing = Decision(float("nan"), nothing, 0.1, "", "", (("whole", "untrained twin"),), float("nan"))
    return Evidence(
        claim="c", version=2, statement="s", verdict=verdict, reason="", rule="r", form="whole",
        estimate=float(np.float32(0.5)), unit="u",
        interval=(0.1, 0.9), n=7, n_unit="problems", controls=(control,), decision=missing, seed=3, note="",
    )  # fmt: skip


def test_evidence_is_plain_json_even_where_a_number_is_missing() -> None:
    written = json.loads(json.dumps(evidence("inconclusive").to_dict(), allow_nan=False))
    control = {"form": "whole", "name": "untrained twin", "decides": True, "quantity": ""}
    assert written["controls"] == [control | {"estimate": None, "interval": [0.0, None]}]
    assert written["interval"] == [0.1, 0.9]
    assert written["decision"] == {
        "margin": None, "interval": [None, None], "smallest_effect": 0.1, "form": "", "strongest": "",
        "missing": [["whole", "untrained twin"]], "p": None,
    }  # fmt: skip
    assert Evidence.from_dict(written).to_dict() == written


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a verdict"):
        evidence("proved")
