"""The benchmark of policies at toy size: what it counts is right, whatever the machine's speed."""

import json
import math
from pathlib import Path
from types import ModuleType

import pytest

TREATMENTS = {"probe", "probe_all", "alrr_0", "erss", "alrr_10"}


@pytest.fixture
def policies(program, monkeypatch) -> ModuleType:
    """The program, beside which its other parts lie."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return program("benchmarks/policies.py")


@pytest.mark.parametrize("model", ["tiny-thinker", "qwen3-8b"])
def test_a_result_holds_what_was_measured_and_its_table_shows_it(
    policies, model, tmp_path, monkeypatch, capsys
):
    import subjects

    monkeypatch.setitem(subjects.SHAPES, "qwen3-8b", (32, 48, 8, 16, True))
    out = tmp_path / "new" / "toy.json"
    sizes = ["--batch", "2", "--rounds", "2", "--new-tokens", "4"]
    policies.main(["--model", model, *sizes, "--out", str(out)])
    result = json.loads(out.read_text())
    assert (result["model"], result["batch"], result["rounds"], result["new_tokens"]) == (model, 2, 2, 4)
    assert result["torch"]
    assert result["hardware"]
    assert set(result["ratios"]) == set(result["bytes_per_request"]) == TREATMENTS
    for row in result["ratios"].values():
        assert row["ratio"] > 0
        assert row["half_width"] >= 0
        assert ("target" in row) == ("met" in row)
    assert {name for name, row in result["ratios"].items() if "target" in row} == {"probe", "alrr_0"}
    floor = result["alrr_10_against_floor"]
    assert 1 <= floor["forced_passes"] <= 4 * len(result["layers"])
    assert 0.05 <= floor["triggered_share"] <= 0.2
    assert floor["layer_pass_us"] > 0
    table = capsys.readouterr().out
    assert table.strip() == out.with_suffix(".md").read_text().strip()
    assert all(f"| {name} | {row['ratio']:.3f} |" in table for name, row in result["ratios"].items())


def test_a_ratio_is_taken_within_its_round(policies):
    import numpy as np

    slow, fast = 100.0, 1.0
    found = policies.ratio([1.5 * slow, 1.5 * fast], [slow, fast], np.random.default_rng(0))
    assert found == {"ratio": 1.5, "half_width": 0.0}


def test_the_half_width_covers_the_median_of_noisy_rounds(policies):
    import numpy as np

    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        found = policies.ratio(list(rng.normal(1.05, 0.05, 40)), [1.0] * 40, rng)
        missed += abs(found["ratio"] - 1.05) > found["half_width"]
    assert missed <= 14  # 5 expected of 100; more than 14 has a chance below 1e-3
    assert math.isfinite(found["half_width"])


def test_memory_counts_each_storage_once(policies):
    import torch

    tensor = torch.zeros(4, 8)
    assert sum(policies._storages({"a": tensor, "b": [tensor[0], tensor.view(-1)]}).values()) == 4 * 8 * 4
