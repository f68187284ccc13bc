"""RL against SFT: a sharp spike is told from a gradual rise, and from what texts, seeds and unequal accuracy make."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layout_fixture import put
from paradigm_fixture import FLAT, GRADUAL, LAYERS, SHARP, curves

from normprobe.claims.claim import Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.paradigm import (
    AMPLIFICATION,
    BASE,
    CLAIM,
    GROWTH,
    RISE,
    RL_SEEDS,
    SFT_SEEDS,
    SPIKE,
)
from normprobe.claims.registry import evaluate_all
from normprobe.runs.tables import Tables

SHARPER = {"RL": SHARP, "SFT": GRADUAL}
SEEDS = {**SHARPER, "RL again": 1.1 * SHARP, "SFT again": 0.9 * GRADUAL}


def tables(path: Path, table: pd.DataFrame) -> Tables:
    put(path, "paradigm", table)
    return Tables(path)


def judge(path: Path, *networks: dict[str, np.ndarray], **planted) -> Evidence:
    return CLAIM.judge(tables(path, curves(*networks, **planted)), Resampling(np.random.default_rng(0)), 0)[0]


def measured(path: Path, table: pd.DataFrame) -> Measurement:
    return CLAIM.measure(tables(path, table), Resampling(np.random.default_rng(0)))


def test_a_sharp_spike_against_a_gradual_rise_is_supported_and_the_note_is_about_two_models(tmp_path):
    evidence = judge(tmp_path, SHARPER)
    assert evidence.verdict == "supported"
    assert evidence.n == 40
    assert "about these two models" in evidence.note
    assert "all 40 problems (100.0% and 100.0% right)" in evidence.note


@pytest.mark.parametrize(
    "networks",
    [
        {"RL": SHARP, "SFT": SHARP},
        {"RL": GRADUAL, "SFT": GRADUAL},
        {"RL": GRADUAL, "SFT": SHARP},
        {"RL": FLAT, "SFT": FLAT},
        {"RL": FLAT, "SFT": -SHARP},  # a fall less sharp than another is no spike
        {"RL": 0.02 * SHARP, "SFT": FLAT},  # sharp, and next to nothing
    ],
    ids=["both sharp", "both gradual", "the reverse", "both flat", "a sharper fall", "a small spike"],
)
def test_what_is_not_sharper_is_not_supported(tmp_path, networks):
    assert judge(tmp_path, networks).verdict == "not supported"


def test_what_the_texts_make_is_seen_at_the_base_and_the_twin(tmp_path):
    evidence = judge(tmp_path, {"RL": FLAT, "SFT": FLAT}, texts={"RL": SHARP, "SFT": GRADUAL})
    assert evidence.estimate > 0.2
    assert evidence.verdict == "not supported"
    of = {(control.form, control.name): control.estimate for control in evidence.controls}
    assert of[RISE, "common base"] == pytest.approx(evidence.estimate, abs=0.02)
    assert of[SPIKE, "untrained twin"] > 0.3
    assert abs(of[GROWTH, "untrained twin"]) < 0.1  # over the base's the texts are gone


@pytest.mark.parametrize("part", ["norm", "features"])
def test_features_alone_or_norms_alone_are_not_enough(tmp_path, part):
    both_gradual = {"RL": GRADUAL, "SFT": GRADUAL}
    norm, features = (SHARPER, both_gradual) if part == "norm" else (both_gradual, SHARPER)
    evidence = judge(tmp_path, norm, features=features)
    assert evidence.verdict == "not supported"
    assert evidence.decision.form in ((RISE, SPIKE) if part == "norm" else (AMPLIFICATION, GROWTH))


def test_two_seeds_that_lie_as_far_apart_deny_it(tmp_path):
    assert judge(tmp_path / "near", SEEDS).verdict == "supported"
    for name, seeds, other in (("RL again", RL_SEEDS, GRADUAL), ("SFT again", SFT_SEEDS, SHARP)):
        evidence = judge(tmp_path / name, {**SEEDS, name: other})
        assert evidence.verdict == "not supported"
        assert evidence.decision.strongest == seeds


def test_every_control_says_what_it_rules_out(tmp_path):
    forms = measured(tmp_path, curves(SEEDS)).forms
    assert {name for form in forms.values() for name in form.controls} == set(CLAIM.rules_out)
    assert BASE not in forms[GROWTH].controls


def test_the_numbers_are_those_computed_by_hand(tmp_path):
    table = curves(SHARPER)
    evidence, series = CLAIM.judge(tables(tmp_path, table), Resampling(np.random.default_rng(0)), 0)

    def mean(paradigm: str, column: str, subject: str = "model") -> np.ndarray:
        rows = table[(table["paradigm"] == paradigm) & (table["subject"] == subject)]
        return rows[rows["scope"] == "response"].groupby("layer")[column].mean().to_numpy()

    def rise(paradigm: str) -> float:
        z, norm = ([mean(paradigm, f"{of}_{mode}") for mode in ("think", "no_think")] for of in ("z", "norm"))
        d, g = ((z[0] + sign * z[1]) / ((norm[0] + norm[1]) / 2) for sign in (-1, 1))
        late, middle = slice(6, 8), slice(2, 6)
        return (d[late].mean() - d[middle].mean()) / (g[late].mean() + g[middle].mean())

    def share(paradigm: str) -> float:
        growth = np.log(mean(paradigm, "norm_think") / mean(paradigm, "norm_think", "early"))[:-1]
        return (growth[6] - growth[5]) / np.abs(np.diff(growth)).sum()

    assert evidence.estimate == pytest.approx(rise("RL") - rise("SFT"))
    values = {(c.form, c.name): c.estimate for c in evidence.controls if c.quantity == "value"}
    for paradigm in ("RL", "SFT"):
        assert values[RISE, paradigm] == pytest.approx(rise(paradigm))
        assert values[GROWTH, paradigm] == pytest.approx(share(paradigm))
    drawn = series[(series["quantity"] == AMPLIFICATION) & (series["name"] == "RL")]
    ratio = np.log(mean("RL", "norm_think") / mean("RL", "norm_no_think"))
    np.testing.assert_allclose(drawn.sort_values("layer")["estimate"], ratio)


def test_at_unequal_accuracy_the_problems_that_both_solve_or_neither_are_compared(tmp_path):
    """RL spikes where it alone is right, and there only."""
    alone = np.arange(40) < 16
    evidence = judge(tmp_path, SHARPER, right={"SFT": (~alone).astype(float)})
    assert evidence.verdict == "supported"
    assert evidence.n == 24
    assert "the 24 of 40 problems that both answer right or both wrong" in evidence.note
    table = curves(SHARPER, right={"SFT": (~alone).astype(float)})
    gradual = curves({"RL": GRADUAL, "SFT": GRADUAL}, right={"SFT": (~alone).astype(float)})
    elsewhere = ~table["problem_id"].isin([f"p{i:03d}" for i in np.flatnonzero(alone)])
    table.loc[elsewhere] = gradual[elsewhere]
    found = CLAIM.judge(tables(tmp_path / "alone", table), Resampling(np.random.default_rng(0)), 0)[0]
    assert found.verdict == "not supported"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            np.arange(40) < 30,
            "Accuracy cannot be matched: 100.0% and 25.0% right, and only 10 of 40 problems",
        ),
        (np.full(40, np.nan), "Accuracy is not known: 0 of 40 problems could be judged"),
    ],
    ids=["too unequal", "unjudged"],
)
def test_where_accuracy_cannot_be_matched_it_is_inconclusive(tmp_path, wrong, reason):
    evidence = judge(tmp_path, SHARPER, right={"SFT": 1.0 - wrong})
    assert evidence.verdict == "inconclusive"
    assert reason in evidence.reason


def test_a_base_without_as_many_features_leaves_it_open(tmp_path):
    table = curves(SHARPER)
    table.loc[(table["subject"] == "early") & (table["paradigm"] == "SFT"), ["z_think", "z_no_think"]] = (
        np.nan
    )
    evidence = CLAIM.judge(tables(tmp_path, table), Resampling(np.random.default_rng(0)), 0)[0]
    assert evidence.verdict == "inconclusive"
    assert evidence.decision.missing == ((RISE, BASE), (SPIKE, BASE))
    assert evidence.reason.startswith(
        "Common base cannot be computed: in one of the runs fewer of its features"
    )


def test_too_few_problems_layers_or_dictionaries_are_not_judged(tmp_path):
    whole = curves(SHARPER)
    for table, what in (
        (curves(SHARPER, n=9), "at least 10 measured problems that both models answered"),
        (whole[whole["layer"] < 4], "a model of five layers or more, and this one has 4"),
        (
            whole.assign(z_think=whole["z_think"].where(whole["layer"] >= 6)),
            "dictionaries in the middle half",
        ),
    ):
        with pytest.raises(NotMeasurable, match=what):
            measured(tmp_path, table)


def test_dictionaries_of_some_layers_are_enough(tmp_path):
    table = curves(SHARPER)
    some = table["layer"].isin([1, 4, 7])
    table[["z_think", "z_no_think"]] = table[["z_think", "z_no_think"]].where(some)
    evidence, series = CLAIM.judge(tables(tmp_path, table), Resampling(np.random.default_rng(0)), 0)
    assert evidence.verdict == "supported"
    assert set(series.loc[series["quantity"] == SPIKE, "layer"]) == {1, 4, 7}
    assert set(series.loc[series["quantity"] == GROWTH, "layer"]) == set(range(LAYERS))


def test_a_run_that_was_compared_with_none_skips_it_with_the_reason(tmp_path):
    tmp_path.joinpath("empty").mkdir()
    evaluate_all(Tables(tmp_path / "empty"), 0, tmp_path / "evidence")
    assert "it needs paradigm (a row per run that is compared" in (
        tmp_path / "evidence" / "paradigm.json"
    ).read_text(encoding="utf-8")
