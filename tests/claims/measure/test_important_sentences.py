"""The second form of marks_critical_steps: norms against the importance of sentences, planted and absent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import LATE, Effects, write_run
from layout_fixture import put
from safetensors.numpy import save_file

from normprobe.claims.marks_critical_steps import CLAIM, PLAIN
from normprobe.claims.measure.important_sentences import FORMS, MEAN, PEAK, ImportantSentences
from normprobe.claims.measure.measured_tokens import NotMeasurable
from normprobe.claims.measure.readers import TWIN
from normprobe.claims.measure.resampling import Resampling
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import partial_kendall, sign_products


def sentences_of(tokens: pd.DataFrame, rng: np.random.Generator, cut: float | None) -> pd.DataFrame:
    """The sentences of the measured thoughts, each closed by `;` (or with the probability `cut` by any token), of
    random importance."""
    thoughts = tokens[(tokens["split"] == "measure") & (tokens["mode"] == "think")]
    rows = []
    for (response, problem), thought in thoughts[thoughts["segment"] == "thought"].groupby(
        ["response_id", "problem_id"]
    ):
        closes = (thought["token"] == ";") if cut is None else rng.random(len(thought)) < cut
        ends = thought.loc[closes, "position"].to_numpy() + 1
        starts = [int(thought["position"].min()), *ends][: len(ends)]
        rows += [
            {"response_id": response, "problem_id": problem, "sentence": i, "start": start, "end": end}
            for i, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
    table = pd.DataFrame(rows).assign(text="s", n_replaced=16, n_kept=32, chance=0.1)
    return table.assign(total_variation=rng.uniform(size=len(table)))


def write(path: Path, effect: float, *, roles: bool = False, long: bool = False, **options) -> Path:
    """A run with importance. effect: planted in the late layers' norms of the model, in proportion to importance.

    long: importance is the sentence's length instead, and norms have nothing to do with it.
    """
    run = write_run(path, Effects(), roles=roles, **options)
    tables, rng = Tables(run), np.random.default_rng(1)
    sentences = sentences_of(tables.tokens, rng, 0.2 if long else None)
    if long:
        length = (sentences["end"] - sentences["start"]).to_numpy(dtype=float)
        sentences["total_variation"] = length / 10 + 0.01 * rng.uniform(size=len(length))
    signals = dict(tables.signals("model"))
    norm, place = signals["norm"].copy(), tables.tokens.set_index(["response_id", "position"]).index
    for row in sentences.itertuples():
        columns = place.get_indexer([(row.response_id, position) for position in range(row.start, row.end)])
        norm[LATE, columns] *= np.exp(effect * row.total_variation)
    save_file({**signals, "norm": norm}, run / "traces" / "model.safetensors")
    put(run, "importance", sentences)
    return run


def judge(run: Path):
    return CLAIM.judge(Tables(run), Resampling(np.random.default_rng(0)), 0)


def test_planted_importance_is_supported_without_roles(tmp_path):
    evidence, series = judge(write(tmp_path / "run", 4.0))
    assert evidence.verdict == "supported"
    assert evidence.form == PEAK
    assert evidence.estimate > 0.8
    assert evidence.decision.form in FORMS
    assert set(series["quantity"]) == set(FORMS)
    assert "more important for the answer" in evidence.note


def test_absent_importance_is_not_supported(tmp_path):
    evidence, _ = judge(write(tmp_path / "run", 0.0))
    assert evidence.verdict == "not supported"
    assert abs(evidence.estimate - 0.5) < 0.1


def test_with_roles_both_kinds_of_forms_decide(tmp_path):
    evidence, _ = judge(write(tmp_path / "run", 4.0, roles=True))
    assert evidence.form == PLAIN
    deciding = {control.form for control in evidence.controls if control.decides}
    assert deciding >= {PLAIN, *FORMS}
    assert evidence.verdict == "not supported"  # norms of computed tokens have no effect planted
    assert evidence.decision.form not in FORMS


def test_length_is_regressed_out_of_the_peak(tmp_path):
    """Longer sentences have higher peaks by chance: the twin and the regression both catch it."""
    run = write(tmp_path / "run", 0.0, long=True)
    evidence, _ = judge(run)
    found = {(control.form, control.name): control.estimate for control in evidence.controls}
    assert evidence.estimate > 0.6
    assert found[PEAK, TWIN] > 0.6
    assert found[FORMS[2], "this model"] < evidence.estimate - 0.05
    assert evidence.verdict == "not supported"


def test_without_the_untrained_twin_it_is_inconclusive(tmp_path):
    evidence, _ = judge(write(tmp_path / "run", 4.0, subjects=("model",)))
    assert evidence.verdict == "inconclusive"


def test_too_few_problems_are_left_out_and_nothing_at_all_is_told(tmp_path):
    run = write(tmp_path / "run", 4.0, roles=True)
    sentences = Tables(run).importance
    few = sentences["problem_id"].isin(sentences["problem_id"].unique()[:9])
    sentences.assign(total_variation=sentences["total_variation"].where(few)).to_parquet(
        run / "importance" / "sentences.parquet"
    )
    with pytest.raises(NotMeasurable, match="at least 10 measured problems whose sentences differ"):
        ImportantSentences(Tables(run))
    evidence, _ = judge(run)
    assert {control.form for control in evidence.controls}.isdisjoint(FORMS)
    bare = write_run(tmp_path / "bare", roles=False)
    with pytest.raises(NotMeasurable, match="needs roles, or the importance of sentences"):
        judge(bare)


def test_the_number_of_a_sample_is_the_slow_references(tmp_path):
    """One problem after another, pair after pair."""
    run = write(tmp_path / "run", 1.0)
    tables = Tables(run)
    sentences = ImportantSentences(tables)
    norm = tables.signals("model")["norm"]
    place = tables.tokens.set_index(["response_id", "position"]).index
    shares = []
    for _, own in tables.importance.groupby("problem_id"):
        wins = []
        means = [
            norm[5, place.get_indexer([(r.response_id, p) for p in range(r.start, r.end)])]
            .astype(float)
            .mean()
            for r in own.itertuples()
        ]
        importance = own["total_variation"].to_numpy()
        for i in range(len(own)):
            wins += [means[i] > means[j] for j in range(len(own)) if importance[i] > importance[j]]
        shares.append(np.mean(wins))
    found = sentences.forms("model", np.ones((1, sentences.n)))
    assert found[MEAN][0, 5] == pytest.approx(np.mean(shares))


def test_partial_kendall_is_kendalls_recursion():
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 12))
    products = sign_products(x + z, y + z, z[None])
    (xy, xz, yz) = (products[0, 1], products[0, 2], products[1, 2])
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert float(partial_kendall(products)) == pytest.approx(expected)
