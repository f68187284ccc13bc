"""The benchmark of policies at toy size: what it counts is right, whatever the machine's speed."""

import json
import math
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TREATMENTS = {
    "eager": {"probe", "probe_all", "alrr_0", "erss", "alrr_10"},
    "graphs": {"probe", "alrr_0", "erss"},
}


@pytest.fixture
def policies(program, monkeypatch) -> ModuleType:
    """The program, which imports the other modules of its folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return program("benchmarks/policies.py")


@pytest.mark.parametrize("model", ["tiny-thinker", "qwen3-toy"])
def test_a_result_holds_what_was_measured_and_its_table_shows_it(policies, model, tmp_path, capsys):
    out = tmp_path / "new" / "toy.jsonl"
    sizes = ["--batch", "2", "3", "--rounds", "2", "--new-tokens", "4"]
    policies.main(["--model", model, *sizes, "--out", str(out)])
    table = capsys.readouterr().out
    assert table.strip() == out.with_suffix(".md").read_text().strip()
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [result["batch"] for result in results] == [2, 3]
    for result in results:
        assert (result["model"], result["mode"], result["rounds"], result["new_tokens"]) == (
            model,
            "eager",
            2,
            4,
        )
        assert result["torch"]
        assert result["hardware"]
        check_ratios(result, table)
        assert set(result["bytes_per_request"]) == TREATMENTS["eager"]
        assert result["bytes_per_request"]["erss"] > result["bytes_per_request"]["alrr_0"] > 0
        floor = result["alrr_10_against_floor"]
        assert 1 <= floor["forced_passes"] <= 4 * len(result["layers"])
        assert 0.05 <= floor["triggered_share"] <= 0.25
        assert floor["layer_pass_us"] > 0


def check_ratios(result, table):
    """Every treatment has a ratio, those with a target a verdict, and what changes nothing writes the same tokens."""
    assert set(result["ratios"]) == TREATMENTS[result["mode"]]
    for name, row in result["ratios"].items():
        assert row["ratio"] > 0
        assert row["half_width"] >= 0
        assert ("target" in row) == ("met" in row) == (name in {"probe", "alrr_0"})
        assert f"| {name} | {row['ratio']:.3f} |" in table
    assert set(result["same_tokens"].values()) == {1.0}


def test_a_ratio_is_taken_within_its_round(policies):
    import numpy as np

    slow, fast = 100.0, 1.0
    rounds = policies.Rounds(np.array([slow, fast]), np.array([1.5 * slow, 1.5 * fast]), 1.0)
    assert rounds.ratios.tolist() == [1.5, 1.5]


def test_the_half_width_covers_the_median_of_noisy_rounds(policies):
    import numpy as np

    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        found = policies.median(rng.normal(1.05, 0.05, 40), rng, "ratio")
        missed += abs(found["ratio"] - 1.05) > found["half_width"]
    assert missed <= 14  # 5 expected of 100; more than 14 has a chance below 1e-3
    assert math.isfinite(found["half_width"])
