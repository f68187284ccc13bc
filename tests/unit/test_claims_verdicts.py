"""Each claim finds its effect where it was planted, and only there; what is lacking leaves it open."""

from pathlib import Path

import numpy as np
import pytest
from claims_fixture import Effects, write_run

from normprobe.claims import (
    entropies_do_not,
    high_norm_is_causal,
    late_spike,
    marks_critical_steps,
    norm_tracks_features,
    thinking_norm_is_higher,
)
from normprobe.claims.measured import NotJudged
from normprobe.claims.tables import Tables

PLANTED = [
    (late_spike, Effects(late_spike=1.0)),
    (thinking_norm_is_higher, Effects(thinking_norm=0.3)),
    (norm_tracks_features, Effects(tracking=2.0)),
    (entropies_do_not, Effects(tracking=2.0)),
    (marks_critical_steps, Effects(critical=0.6)),
    (high_norm_is_causal, Effects(causal=0.7)),
]
NAMES = [claim.NAME for claim, _ in PLANTED]


def judge(claim, path: Path):
    return claim.evaluate(Tables(path), np.random.default_rng(0), 0)


@pytest.fixture(scope="module")
def null_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "null")


@pytest.mark.parametrize("claim, effects", PLANTED, ids=NAMES)
def test_planted_effect_is_supported(claim, effects, tmp_path):
    evidence, _ = judge(claim, write_run(tmp_path / "run", effects))
    assert evidence.verdict == "supported"
    low, high = evidence.interval
    assert low < evidence.estimate < high


@pytest.mark.parametrize("claim", [claim for claim, _ in PLANTED], ids=NAMES)
def test_absent_effect_is_not_supported(claim, null_run):
    evidence, _ = judge(claim, null_run)
    assert evidence.verdict == "not supported"


def test_fall_in_the_last_quarter_is_not_a_spike(tmp_path):
    evidence, _ = judge(late_spike, write_run(tmp_path / "run", Effects(late_spike=-1.0)))
    assert evidence.verdict == "not supported"
    assert evidence.estimate < -0.1


@pytest.mark.parametrize("claim, effects", PLANTED[:5], ids=NAMES[:5])
def test_without_the_untrained_twin_nothing_is_supported(claim, effects, tmp_path):
    evidence, _ = judge(claim, write_run(tmp_path / "run", effects, sources=("model",)))
    assert evidence.verdict == "inconclusive"
    twin = next(control for control in evidence.controls if control.name.endswith("untrained twin"))
    assert np.isnan(twin.estimate)


def test_an_early_checkpoint_is_only_asked_of_models_that_have_one(tmp_path):
    run = write_run(tmp_path / "run", Effects(thinking_norm=0.3), sources=("model", "untrained"))
    evidence, _ = judge(thinking_norm_is_higher, run)
    assert evidence.verdict == "supported"


def test_missing_attention_entropy_leaves_the_contrast_open(tmp_path):
    run = write_run(tmp_path / "run", Effects(tracking=2.0), entropies=("entropy_softmax", "entropy_rms"))
    assert judge(entropies_do_not, run)[0].verdict == "inconclusive"


def test_missing_filler_leaves_the_norm_gap_open(tmp_path):
    run = write_run(tmp_path / "run", Effects(thinking_norm=0.3), modes=("think", "no_think"))
    assert judge(thinking_norm_is_higher, run)[0].verdict == "inconclusive"


def test_layerwise_correlation_is_high_in_every_null(null_run):
    """The paper's headline is shown for what it is: depth alone drives it up, with no effect planted anywhere."""
    evidence, _ = judge(norm_tracks_features, null_run)
    naive = {
        control.name: control.estimate
        for control in evidence.controls
        if control.name.startswith("layer-wise ρ:")
    }
    assert len(naive) == 4
    assert min(naive.values()) > 0.9
    assert evidence.verdict == "not supported"


def test_lower_norms_at_computed_tokens_are_told(tmp_path):
    evidence, _ = judge(marks_critical_steps, write_run(tmp_path / "run", Effects(critical=-1.0)))
    assert evidence.verdict == "not supported"
    assert evidence.estimate < 0.2
    assert "below those of other thought tokens" in evidence.note


def test_nothing_suppressed_says_nothing(tmp_path):
    run = write_run(tmp_path / "run", Effects(causal=0.7))
    path = run / "experiments" / "suppression.parquet"
    table = Tables(run).suppression
    table.assign(n_suppressed=0).to_parquet(path)
    evidence, _ = judge(high_norm_is_causal, run)
    assert evidence.verdict == "inconclusive"
    assert "nothing was suppressed" in evidence.note


def test_same_seed_same_evidence(null_run):
    assert judge(late_spike, null_run)[0] == judge(late_spike, null_run)[0]


def test_too_few_problems_are_not_judged(tmp_path):
    run = write_run(tmp_path / "run", n_problems=9)
    for claim, _ in PLANTED:
        with pytest.raises(NotJudged, match="at least 10"):
            judge(claim, run)


def test_without_copied_twins_the_marks_stay_open(tmp_path):
    """No computed token is ever copied as the same string: that form cannot be computed, however high the AUROC."""
    run = write_run(tmp_path / "run", Effects(critical=1.0))
    path = run / "traces" / "tokens.parquet"
    tokens = Tables(run).tokens
    tokens.assign(token=tokens["token"].mask(tokens["role"] == "copied", "9")).to_parquet(path)
    evidence, _ = judge(marks_critical_steps, run)
    assert evidence.verdict == "inconclusive"
    assert "the same string it is (not computed)" in evidence.note
