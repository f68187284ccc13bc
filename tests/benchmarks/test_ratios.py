"""`make bench`: one table with every ratio of the results that the repository holds."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_has_every_ratio_and_shows_it_as_its_own_table_does(program):
    lines = program("benchmarks/ratios.py").table().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert {len(line) for line in lines} == {len(lines[0])}
    for file in sorted(RESULTS.glob("*.jsonl")):
        own = [row for row in cells if row[0] == file.stem]
        results = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ratios = [(name, row) for result in results for name, row in result.get("ratios", {}).items()]
        plain = [row for row in own if row[2].endswith(" / plain")]
        assert len(plain) == len(ratios)
        for shown, (name, row) in zip(plain, ratios, strict=True):
            assert shown[2].endswith(f", {name} / plain")
            assert float(shown[3]) == round(row["ratio"], 3)
            assert shown[6] == {True: "met", False: "not met", None: ""}[row.get("met")]
        published = file.with_suffix(".md").read_text(encoding="utf-8")
        for row in own:
            number = float(row[3])
            assert any(abs(float(text) - number) < 6e-3 for text in re.findall(r"\d+\.\d+", published))
    assert any("a pass alone" in row[2] for row in cells)
    assert any("/ normprobe" in row[2] for row in cells)
