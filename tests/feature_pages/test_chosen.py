"""Which features get a page: the first of I, and a control for each."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from normprobe.feature_pages.chosen import choose
from normprobe.saes.features import PairedMoments

WIDTH = 30


def features(seed: int, layers: tuple[int, ...] = (2, 5)) -> pd.DataFrame:
    """The table of features of some problems; the first third fires more in think."""
    rng = np.random.default_rng(seed)
    moments = PairedMoments(len(layers), WIDTH)
    shape = (len(layers), 20, WIDTH)
    moments.add(rng.gamma(2, 1, shape) + 2 * (np.arange(WIDTH) < WIDTH // 3), rng.gamma(2, 1, shape))
    return moments.table(layers)


@given(st.integers(0, 50), st.integers(1, 12))
def test_the_clearest_reasoning_features_and_as_many_controls_are_chosen(seed, n):
    table = features(seed)
    chosen = choose(table, n)
    for layer, own in chosen.groupby("layer"):
        rows = table[table["layer"] == layer].set_index("feature")
        reasoning, matched = (
            own[own["kind"] == kind].set_index("feature") for kind in ("reasoning", "matched")
        )
        assert len(reasoning) == min(n, rows["selected"].sum())
        assert rows.loc[reasoning.index, "selected"].all()
        left_out = rows[rows["selected"]].drop(reasoning.index)
        assert rows.loc[reasoning.index, "p"].max() <= left_out["p"].min() or left_out.empty
        assert len(matched) == min(len(reasoning), rows["matched"].sum())
        assert rows.loc[matched.index, "matched"].all()
        for control, reasoning_feature in matched["counterpart"].items():
            assert reasoning.loc[reasoning_feature, "counterpart"] == control


def test_the_only_feature_gets_the_control_of_nearest_activation():
    table = features(0, (1,)).assign(selected=False, matched=False, mean_no_think=0.0)
    table.loc[[3, 4, 7, 9], "mean_think"] = [1.0, 5.0, 1.2, 0.7]
    table.loc[3, "selected"] = True
    table.loc[[4, 7, 9], "matched"] = True
    chosen = choose(table, 5)
    assert chosen.to_dict("list") == {
        "layer": [1, 1],
        "feature": [3, 7],
        "kind": ["reasoning", "matched"],
        "counterpart": [7, 3],
    }


def test_a_reasoning_feature_without_a_control_has_no_counterpart():
    table = features(0, (1,)).assign(matched=False)
    chosen = choose(table, 2)
    assert list(chosen["kind"]) == ["reasoning", "reasoning"]
    assert chosen["counterpart"].isna().all()
    assert choose(table.assign(selected=False), 2).empty
