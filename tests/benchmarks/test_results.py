"""The results that the repository holds: each table is what the program that measured it makes of its JSON lines."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"))
# The program of a file, by a part of the file's name; policies.py and vllm_engine.py share one table.
PROGRAMS = {
    "sae-training": "sae_training",
    "-tracing-": "tracing",
    "coherence": "coherence",
    "-responses-": "engine_responses",
    "-parts-": "step_parts",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_tables_of_the_repository_show_its_results(file, program, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    name = next((module for part, module in PROGRAMS.items() if part in file.stem), "policies")
    as_markdown = program(f"benchmarks/{name}.py").as_markdown
    results = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert results
    table = "\n".join(map(as_markdown, results))
    assert file.with_suffix(".md").read_text(encoding="utf-8").strip() == table.strip()
