"""Norm and spike by domain: the numbers of the run's own arrays, with an interval around each."""

import numpy as np
import pytest

from normprobe.report.figures import FIGURES
from normprobe.report.norm_by_domain import NORMS, SPIKE, by_domain
from normprobe.runs.tables import Tables


def test_each_domain_has_its_mean_norms_and_its_spike(whole_run):
    tables = Tables(whole_run)
    series = by_domain(tables, 0)
    norm, tokens = tables.signals("model")["norm"], tables.tokens
    problems = tables.problems[tables.problems["split"] == "measure"]
    domains = problems.set_index("problem_id")["domain"]
    assert set(series["name"]) == set(domains)
    measured = (tokens["split"] == "measure") & tokens["segment"].isin(["thought", "answer"])

    def means(problem_id: str, mode: str) -> np.ndarray:
        chosen = measured & (tokens["problem_id"] == problem_id) & (tokens["mode"] == mode)
        return norm[:, chosen.to_numpy()].mean(axis=1)

    for domain in set(domains):
        ids = [i for i in tokens.loc[measured, "problem_id"].unique() if domains[i] == domain]
        think = np.array([means(i, "think") for i in ids])
        ratio = np.log(think / [means(i, "no_think") for i in ids])
        depth = len(norm)
        spike = ratio[:, -depth // 4 :].mean() - ratio[:, depth // 4 : -depth // 4].mean()
        own = series[series["name"] == domain].set_index("quantity")
        assert own.loc[NORMS, "estimate"].to_numpy() == pytest.approx(think.mean(axis=0), rel=1e-5)
        assert own.loc[SPIKE, "estimate"] == pytest.approx(spike, abs=1e-5)
        assert own.loc[SPIKE, "low"] < own.loc[SPIKE, "estimate"] < own.loc[SPIKE, "high"]


def test_the_figure_has_both_above_the_claims_panel(whole_run):
    with FIGURES["fig_09_domain_and_difficulty"](whole_run).drawn() as figure:
        norms, spikes, of_claim = figure.axes
        figure.canvas.draw()
        assert len(spikes.get_yticklabels()) == len(norms.lines) == 2
        ticks = [label.get_text() for axis in (norms.yaxis,) for label in axis.get_ticklabels(which="both")]
    assert "difficulty" in of_claim.get_xlabel()
    assert any(ticks)
    assert not any("$" in tick for tick in ticks)
