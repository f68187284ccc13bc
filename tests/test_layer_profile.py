"""The layer profile: its numbers on planted norms, its round trip, and every way a file can be wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.layer_profile import QUANTILES, LayerProfile, chosen_layers, threshold

MODEL = {
    "name": "m",
    "weights": "abc",
    "architecture": "Qwen3ForCausalLM",
    "n_layers": 8,
    "d_model": 4,
    "vocab": 9,
}


def planted(gain: list[float]) -> tuple[pd.DataFrame, np.ndarray]:
    """Traces of 8 layers whose think norms are `gain[layer]` times those of no_think, with a sink in each response."""
    rng = np.random.default_rng(0)
    rows = []
    for problem in range(20):
        for mode in ("think", "no_think"):
            for position, segment in enumerate(
                ["prompt", "prompt", *["thought"] * 6, "format", *["answer"] * 3]
            ):
                if mode == "think" or segment != "thought":
                    split = "select" if problem < 12 else "measure"
                    rows.append((f"p{problem}", split, mode, segment, position == 9))
    tokens = pd.DataFrame(rows, columns=["problem_id", "split", "mode", "segment", "sink"])
    norm = np.outer(np.arange(1, 9), rng.uniform(1, 2, len(tokens)))
    norm[:, tokens["mode"] == "think"] *= np.array(gain)[:, None]
    norm[:, tokens["sink"]] *= 100
    norm[:, tokens["split"] == "measure"] *= 7  # must not be looked at
    return tokens, norm.astype(np.float32)


@pytest.fixture
def profile() -> LayerProfile:
    return LayerProfile.measure(*planted([1, 1, 1, 1, 1, 1.5, 1.6, 1.7]), MODEL)


def test_quantiles_and_thresholds_are_those_of_the_chosen_tokens(profile):
    tokens, norm = planted([1, 1, 1, 1, 1, 1.5, 1.6, 1.7])
    select = tokens[tokens["split"] == "select"]
    spoken = select[select["segment"].isin(["thought", "answer"])]
    for mode in ("think", "no_think"):
        own = spoken[spoken["mode"] == mode]
        for table, part in ((profile.quantiles, own[~own["sink"]]), (profile.quantiles_with_sinks, own)):
            for layer in range(8):
                expected = [np.quantile(norm[layer, part.index].astype(float), q) for q in QUANTILES]
                assert table[mode][layer] == pytest.approx(expected)
    decoded = select[(select["mode"] == "think") & (select["segment"] != "prompt")]
    for layer in range(8):
        lower, upper = (np.quantile(norm[layer, decoded.index].astype(float), q) for q in (0.25, 0.75))
        assert profile.tau[layer] == pytest.approx(upper + 1.5 * (upper - lower))
    assert profile.n_problems == 12


@pytest.mark.parametrize(
    "gain, onset",
    [
        ([1, 1, 1, 1, 1, 1.5, 1.6, 1.7], 5),
        ([0.5, 0.5, 0.5, 0.5, 0.8, 0.8, 0.8, 0.8], 4),  # a rise, although think stays below
        ([1, 1, 1, 1, 1.5, 1, 1.5, 1.5], 6),  # one layer up and down is no onset
        ([1, 1, 1, 1, 1.5, 1.5, 1.5, 1], None),
        ([2] * 8, None),  # higher everywhere: no spike
        ([3, 3, 3, 3, 2, 2, 2, 2], None),
    ],
)
def test_the_onset_is_where_the_ratio_rises_for_good(gain, onset):
    assert LayerProfile.measure(*planted(gain), MODEL).spike_onset == onset


def test_without_no_think_there_is_no_onset_but_a_threshold():
    tokens, norm = planted([1] * 8)
    kept = (tokens["mode"] == "think").to_numpy()
    profile = LayerProfile.measure(tokens[kept].reset_index(drop=True), norm[:, kept], MODEL)
    assert profile.spike_onset is None
    assert list(profile.quantiles) == ["think"]
    assert len(profile.tau) == 8


@pytest.mark.parametrize(
    "n, expected", [(28, range(21, 27)), (10, [8]), (36, range(27, 35)), (4, [2]), (2, [0]), (1, [])]
)
def test_the_chosen_layers_are_the_last_quarter_but_the_last(n, expected):
    assert chosen_layers(n) == list(expected)


@given(st.lists(st.floats(2**-10, 2**14, width=32), min_size=2, max_size=30), st.integers(-8, 8))
def test_the_threshold_scales_with_the_norm_and_lies_above_its_third_quartile(values, power):
    norm = np.array([values], dtype=np.float64)
    tau = threshold(norm)
    assert tau[0] > np.quantile(norm, 0.75)
    scaled = threshold(norm * 2.0**power)[0]
    if min(np.subtract(*np.quantile(norm, [0.75, 0.25])) * x for x in (1, 2.0**power)) > 1e-3:
        assert scaled == pytest.approx(tau[0] * 2.0**power)


def test_equal_norms_leave_a_threshold_above_them():
    assert threshold(np.full((1, 9), 5.0))[0] == pytest.approx(5.0015)


def test_a_saved_profile_is_read_back(profile, tmp_path):
    profile.save(tmp_path / "layer_profile.json")
    assert LayerProfile.load(tmp_path / "layer_profile.json") == profile


def test_a_profile_is_for_its_own_model_in_any_dtype(profile):
    assert profile.for_model(MODEL | {"name": "elsewhere", "dtype": "bfloat16"}) is profile
    assert profile.for_model({"n_layers": 8, "d_model": 4}) is profile
    for change in ({"weights": "xyz"}, {"n_layers": 9}, {"d_model": 5}):
        with pytest.raises(NormprobeError, match="expected a layer profile of"):
            profile.for_model(MODEL | change)


def test_no_decoded_tokens_and_nan_norms_leave_no_file(tmp_path):
    tokens, norm = planted([1] * 8)
    with pytest.raises(NormprobeError, match="decoded think tokens"):
        LayerProfile.measure(tokens[tokens["split"] == "measure"], norm, MODEL)
    norm[3, 4] = math.nan
    path = tmp_path / "layer_profile.json"
    with pytest.raises(NormprobeError, match="in layer 3"):
        LayerProfile.measure(tokens, norm, MODEL).save(path)
    assert list(tmp_path.iterdir()) == []


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(NormprobeError) as caught:
        LayerProfile.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_ends(profile, tmp_path):
    path = tmp_path / "layer_profile.json"
    profile.save(path)
    text = path.read_text().rstrip()
    for end in range(0, len(text), 97):
        assert "expected a layer profile written by normprobe" in refused(path, text[:end])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema": 2}, "schema 1"),
        ({"tau": [1.0] * 7 + [0.0]}, "got 0.0 in layer 7"),
        ({"tau": [1.0] * 7 + [-3]}, "got -3 in layer 7"),
        ({"tau": [1.0] * 7 + [math.nan]}, "a number that is not finite"),
        ({"tau": [1.0] * 7 + [math.inf]}, "a number that is not finite"),
        ({"tau": [1.0] * 7 + [True]}, "in layer 7"),
        ({"tau": [1.0] * 7}, "τ for 7 layers"),
        ({"tau": []}, "τ for 0 layers"),
        ({"tau": None}, "another type"),
        ({"model": None}, "another type"),
        ({"quantiles": None}, "another type"),
        ({"quantiles": {"think": [[1.0] * 7] * 3}}, "another shape in mode think"),
        ({"quantiles": {"think": [[math.nan] * len(QUANTILES)] * 8}}, "a number that is not finite"),
        (
            {"quantiles": {"think": [[2.0] + [1.0] * (len(QUANTILES) - 1)] * 8}},
            "quantiles that fall in mode think",
        ),
        ({"quantile_levels": [0.0] + [2.0] * (len(QUANTILES) - 1)}, "levels outside [0, 1]"),
        ({"chosen_layers": [8]}, "expected layers 0…7"),
        ({"spike_onset": -1}, "expected layers 0…7"),
        ({"chosen_layers": 3}, "another type"),
        ({"extra": 1}, "other fields (extra)"),
    ],
)
def test_impossible_content_is_refused(profile, tmp_path, change, message):
    path = tmp_path / "layer_profile.json"
    profile.save(path)
    assert message in refused(path, json.dumps(json.loads(path.read_text()) | change))


def test_a_missing_file_and_other_json_are_refused(tmp_path):
    with pytest.raises(NormprobeError, match="got none"):
        LayerProfile.load(tmp_path / "nowhere.json")
    assert "no schema version" in refused(tmp_path / "list.json", "[1, 2]")
