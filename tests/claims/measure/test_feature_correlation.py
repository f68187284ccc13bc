"""The correlation with the reasoning features in its three forms, beside slow references."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import LAYERS, Effects, write_run
from scipy.stats import rankdata, spearmanr

from normprobe.claims.measure.feature_correlation import (
    FORMS,
    NO_SINKS,
    PLAIN,
    REGRESSED,
    feature_correlation,
)
from normprobe.claims.measure.measured_tokens import MeasuredTokens
from normprobe.claims.measure.readers import NORM
from normprobe.runs.tables import Tables


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = write_run(tmp_path_factory.mktemp("runs") / "run", Effects(tracking=1.0), n_problems=12)
    tokens = Tables(path).tokens
    sink = (
        np.random.default_rng(1).random(len(tokens)) < 0.1
    )  # not only at the first token, which no form measures
    tokens.assign(sink=sink).to_parquet(path / "traces" / "tokens.parquet")
    return path


def slowly(tables: Tables, reader: str, subject: str, form: str) -> np.ndarray:
    """Mean ρ over problems of each layer, problem by problem and layer by layer."""
    tokens = tables.tokens
    rows = tokens[
        (tokens["split"] == "measure")
        & tokens["mode"].isin(["think", "no_think"])
        & tokens["segment"].isin(["thought", "answer"])
    ]
    if form != PLAIN:
        rows = rows[~rows["sink"]]
    signals, z = tables.signals(subject), tables.z(reader)["z_reasoning"]
    rho = np.zeros((rows["problem_id"].nunique(), LAYERS))
    for layer in range(LAYERS):
        table = rows.assign(
            norm=np.log(signals["norm"][layer, rows.index].astype(float)),
            z=z[layer, rows.index].astype(float),
            surprisal=signals["surprisal"][rows.index],
        )
        if form == REGRESSED:
            for name in ("norm", "z"):
                table[name] -= table.groupby("token_id")[name].transform("mean")
        for index, (_, here) in enumerate(table.groupby("problem_id")):
            rho[index, layer] = partial(here) if form == REGRESSED else spearmanr(here["norm"], here["z"])[0]
    return rho.mean(axis=0)


def partial(here: pd.DataFrame) -> float:
    ranks = {name: rankdata(here[name]) for name in ("norm", "z", "position", "surprisal")}
    design = np.column_stack([np.ones(len(here)), ranks["position"], ranks["surprisal"]])
    rest = [
        ranks[name] - design @ np.linalg.lstsq(design, ranks[name], rcond=None)[0] for name in ("norm", "z")
    ]
    return float(np.corrcoef(*rest)[0, 1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("reader", "subject"), [("model", "model"), ("random", "model"), ("untrained", "untrained")]
)
def test_every_arm_is_measured_as_the_slow_reference_does(run, form, reader, subject):
    tables = Tables(run)
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = np.ones((1, measured.n_problems))
    fast = feature_correlation(measured, reader, weights, form, [NORM])[NORM]
    np.testing.assert_allclose(fast[0], slowly(tables, reader, subject, form), atol=1e-9)


def test_a_signal_that_was_not_recorded_is_left_out_and_one_without_layers_meets_them_all(run):
    tables = Tables(run)
    measured = MeasuredTokens(tables, ["think", "no_think"])
    weights = np.ones((1, measured.n_problems))
    told = feature_correlation(
        measured, "model", weights, NO_SINKS, ["norm", "surprisal", "unheard_of"], [5, 7]
    )
    assert set(told) == {"norm", "surprisal"}
    assert all(rho.shape == (1, 2) for rho in told.values())
