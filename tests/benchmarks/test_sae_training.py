"""The benchmark of training autoencoders at toy size: the same work for every trainer, to about the same loss."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_trainers_take_turns_and_end_at_about_the_same_loss(program, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    out = tmp_path / "toy.jsonl"
    sizes = "--saes 2 --d 32 --width 64 --k 4 --rows 64 --steps 60 --rounds 3".split()
    assert program("benchmarks/sae_training.py").main([*sizes, "--out", str(out)]) == 0
    (result,) = (json.loads(line) for line in out.read_text().splitlines())
    found = result["found"]
    assert {"normprobe", "SAELens", "encoder"} <= set(found)
    assert all(len(row["seconds"]) == 3 for row in found.values())
    assert found["normprobe"]["loss"] == pytest.approx(found["SAELens"]["loss"], abs=0.005)
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in found)
