"""Each claim finds its effect where it was planted, and only there; what is lacking leaves it open."""

from pathlib import Path

import numpy as np
import pytest
from claims_fixture import Effects, write_run
from safetensors.numpy import load_file, save_file

from normprobe.claims import (
    domain_and_difficulty,
    entropies_do_not,
    hard_tokens_grow_norm,
    high_norm_is_causal,
    late_spike,
    marks_critical_steps,
    norm_tracks_features,
    thinking_norm_is_higher,
)
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.tables import Tables

PLANTED = [
    (late_spike, Effects(late_spike=1.0)),
    (thinking_norm_is_higher, Effects(thinking_norm=0.3)),
    (norm_tracks_features, Effects(tracking=2.0)),
    (entropies_do_not, Effects(tracking=2.0)),
    (marks_critical_steps, Effects(critical=0.6)),
    (high_norm_is_causal, Effects(causal=0.7)),
    (domain_and_difficulty, Effects(difficulty=0.1, domain=0.2)),
    (hard_tokens_grow_norm, Effects(hard=0.2)),
]
NAMES = [claim.CLAIM.name for claim, _ in PLANTED]


def judge(claim, path: Path):
    return claim.CLAIM.judge(Tables(path), Resampling(np.random.default_rng(0)), 0)


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
    evidence, _ = judge(claim, write_run(tmp_path / "run", effects, subjects=("model",)))
    assert evidence.verdict == "inconclusive"
    twin = next(control for control in evidence.own_controls if control.name == "untrained twin")
    assert np.isnan(twin.estimate)


def test_an_early_checkpoint_is_only_asked_of_models_that_have_one(tmp_path):
    run = write_run(tmp_path / "run", Effects(thinking_norm=0.3), subjects=("model", "untrained"))
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
        control.name: control.estimate for control in evidence.controls if control.form == "layer-wise ρ"
    }
    assert len(naive) == 4
    assert min(naive.values()) > 0.9
    assert evidence.verdict == "not supported"


def test_tracking_of_words_alone_is_not_tracking_of_features(tmp_path):
    """The same words have high norms and active features: that leaves nothing once the words are regressed out."""
    evidence, _ = judge(norm_tracks_features, write_run(tmp_path / "run", Effects(words=3.0)))
    plain_controls = [control.estimate for control in evidence.own_controls]
    assert evidence.estimate > max(plain_controls) + 0.3
    assert evidence.verdict == "not supported"
    assert evidence.decision.form == "token identity, position, surprisal regressed out"


def test_a_lead_through_words_is_a_lead_over_the_entropies_and_its_rest_is_shown(tmp_path):
    """Whether words explain the norm is asked of `norm_tracks_features`; here what they leave is shown."""
    evidence, _ = judge(entropies_do_not, write_run(tmp_path / "run", Effects(words=3.0)))
    assert evidence.verdict == "supported"
    rest = ("token identity, position, surprisal regressed out", "this model")
    (left,) = (control for control in evidence.controls if (control.form, control.name) == rest)
    assert left.interval[1] < 0.1


@pytest.mark.parametrize("claim", [norm_tracks_features, entropies_do_not])
def test_what_holds_at_sinks_alone_is_not_supported(claim, tmp_path):
    run = write_run(tmp_path / "run", Effects(tracking=2.0))
    tokens, signals = Tables(run).tokens, dict(Tables(run).signals("model"))
    rng = np.random.default_rng(0)
    sink = rng.random(len(tokens)) < 0.6
    noise = np.exp(rng.normal(size=signals["norm"].shape)).astype(np.float32)
    signals["norm"] = np.where(sink, signals["norm"], noise)
    save_file(signals, run / "traces" / "model.safetensors")
    tokens.assign(sink=sink).to_parquet(run / "traces" / "tokens.parquet")
    evidence, _ = judge(claim, run)
    assert evidence.estimate > 0.1
    assert evidence.verdict == "not supported"
    assert evidence.decision.form == "sinks excluded"


def test_every_layerwise_form_has_every_null(null_run):
    evidence, series = judge(norm_tracks_features, null_run)
    shown = [(c.form, c.name) for c in evidence.controls if c.form.startswith("layer-wise ρ")]
    assert len(shown) == len(set(shown)) == 3 * 4
    means = series[series["layer"] < 0]
    assert (means.groupby("quantity")["name"].nunique() == 4).all()
    assert means["quantity"].nunique() == 6


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


def test_each_deciding_control_can_sink_the_causal_claim_and_none_that_is_shown_can(tmp_path):
    run = write_run(tmp_path / "run", Effects(causal=0.7))
    path = run / "experiments" / "suppression.parquet"
    table = Tables(run).suppression

    def verdict_if_it_hurts_as_much(treatment):
        like = table.loc[table["treatment"] == "high_norm", "correct"]
        copied = table.copy()
        copied.loc[copied["treatment"] == treatment, "correct"] = like.to_numpy()
        copied.to_parquet(path)
        return judge(high_norm_is_causal, run)[0].verdict

    for treatment in ("random_matched", "random_same_factor", "class_matched"):
        assert verdict_if_it_hurts_as_much(treatment) == "not supported"
    for treatment in ("rotation", "direction_only", "low_norm"):
        assert verdict_if_it_hurts_as_much(treatment) == "supported"
    table[table["treatment"] != "class_matched"].to_parquet(path)
    assert judge(high_norm_is_causal, run)[0].verdict == "inconclusive"


def test_a_control_that_repeats_the_treatment_denies_nothing(tmp_path):
    """class_matched as harmful as high_norm, and most of its doses on high_norm's own tokens."""
    run = write_run(tmp_path / "run", Effects(causal=0.7))
    path = run / "experiments" / "suppression.parquet"
    table = Tables(run).suppression
    matched = table["treatment"] == "class_matched"
    table.loc[matched, "correct"] = table.loc[table["treatment"] == "high_norm", "correct"].to_numpy()
    table.loc[matched, "on_same_tokens"] = 0.8
    table.to_parquet(path)
    evidence, _ = judge(high_norm_is_causal, run)
    assert evidence.decision.strongest == "class_matched"
    assert evidence.decision.interval[1] < 0.1
    assert evidence.verdict == "inconclusive"
    (share,) = (control for control in evidence.controls if control.quantity == "share")
    assert share.estimate == pytest.approx(0.8)


def test_the_causal_series_hold_the_dose_of_every_treatment(tmp_path):
    run = write_run(tmp_path / "run", Effects(causal=0.7))
    _, series = judge(high_norm_is_causal, run)
    accuracy = series[series["quantity"] == "accuracy"].set_index("name")
    dose = accuracy.loc[["plain", "high_norm_0.5", "high_norm"]]
    assert dose["factor"].tolist() == [1.0, 0.5, 0.1]
    assert dose["estimate"].is_monotonic_decreasing


def test_same_seed_same_evidence(null_run):
    assert judge(late_spike, null_run)[0] == judge(late_spike, null_run)[0]


READS_FEATURES = [
    (late_spike, Effects(late_spike=1.0)),
    (norm_tracks_features, Effects(tracking=2.0)),
    (entropies_do_not, Effects(tracking=2.0)),
]


@pytest.mark.parametrize("claim, effects", READS_FEATURES)
def test_a_control_with_fewer_features_than_the_model_is_not_computed(claim, effects, tmp_path):
    """A twin with hardly a feature has a number near 0, which the planted effect would exceed."""
    run = write_run(tmp_path / "run", effects)
    table = Tables(run).dictionary
    few = (table["reader"] == "untrained") & (table["layer"] == 3)
    table.loc[few, "n_selected"] = 1
    table.to_parquet(run / "reductions" / "dictionary.parquet")
    evidence, _ = judge(claim, run)
    assert evidence.verdict == "inconclusive"
    assert {name for _, name in evidence.decision.missing} == {"untrained twin"}
    assert "Untrained twin cannot be computed: in 1 of 8 layers fewer of its features fire" in evidence.reason
    assert "(1 of 5 in layer 3)" in evidence.reason


@pytest.mark.parametrize("claim, effects", READS_FEATURES)
def test_a_control_whose_features_never_fire_is_not_computed_either(claim, effects, tmp_path):
    run = write_run(tmp_path / "run", effects)
    z = load_file(run / "reductions" / "tokens.safetensors")
    z["untrained/z_reasoning"][:] = 0
    save_file(z, run / "reductions" / "tokens.safetensors")
    evidence, _ = judge(claim, run)
    assert evidence.verdict == "inconclusive"
    assert {name for _, name in evidence.decision.missing} == {"untrained twin"}
    assert evidence.reason.startswith("Untrained twin cannot be computed")


@pytest.mark.parametrize("claim, effects", READS_FEATURES[1:])
def test_layers_without_reasoning_features_are_left_out_and_dilute_nothing(claim, effects, tmp_path):
    run = write_run(tmp_path / "run", effects)
    before, _ = judge(claim, run)
    z, table = load_file(run / "reductions" / "tokens.safetensors"), Tables(run).dictionary
    for reader in ("model", "untrained", "random", "early"):
        z[f"{reader}/z_reasoning"][:4] = 0
    save_file(z, run / "reductions" / "tokens.safetensors")
    table.assign(n_selected=5 * (table["layer"] >= 4)).to_parquet(run / "reductions" / "dictionary.parquet")
    after, _ = judge(claim, run)
    assert after.verdict == "supported"
    assert after.estimate == pytest.approx(before.estimate, abs=0.05)
    table.assign(n_selected=0).to_parquet(run / "reductions" / "dictionary.parquet")
    with pytest.raises(NotMeasurable, match="no layer of this run has one"):
        judge(claim, run)


def test_a_treatment_that_changed_nothing_is_no_control(tmp_path):
    """It loses exactly nothing, which any harm exceeds."""
    run = write_run(tmp_path / "run", Effects(causal=0.7))
    table = Tables(run).suppression
    idle = table["treatment"] == "class_matched"
    table.loc[idle, "n_suppressed"] = 0
    table.to_parquet(run / "experiments" / "suppression.parquet")
    evidence, _ = judge(high_norm_is_causal, run)
    assert evidence.verdict == "inconclusive"
    assert evidence.reason == "Class_matched cannot be computed: it changed no state."


def test_too_few_problems_are_not_judged(tmp_path):
    run = write_run(tmp_path / "run", n_problems=9)
    for claim, _ in PLANTED:
        with pytest.raises(NotMeasurable, match="at least 10"):
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


def test_features_that_stay_silent_on_filler_do_not_rise_there(tmp_path):
    """They fire in thinking, so their silence is a measurement: a rise of 0, and no missing control."""
    run = write_run(tmp_path / "run", Effects(late_spike=1.0))
    z, mode = load_file(run / "reductions" / "tokens.safetensors"), Tables(run).tokens["mode"]
    z["model/z_reasoning"][:, mode != "think"] = 0
    save_file(z, run / "reductions" / "tokens.safetensors")
    evidence, _ = judge(late_spike, run)
    (filler,) = (control for control in evidence.own_controls if control.name.startswith("filler"))
    assert (filler.estimate, evidence.decision.missing) == (0.0, ())


def test_an_entropy_that_never_varies_follows_nothing(tmp_path):
    run = write_run(tmp_path / "run", Effects(tracking=2.0))
    signals = load_file(run / "traces" / "model.safetensors")
    signals["output_entropy"][:] = 1.5
    save_file(signals, run / "traces" / "model.safetensors")
    evidence, _ = judge(entropies_do_not, run)
    assert evidence.verdict == "supported"
    (constant,) = (c for c in evidence.controls if (c.form, c.name) == ("all tokens", "output entropy"))
    assert constant.estimate == 0.0
