"""Problem sources by name: what is none is refused at once, and a new one is one file."""

from pathlib import Path

import pandas as pd
import pytest

import normprobe.problems
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.models.open import open_model
from normprobe.problems import open_source
from normprobe.tracing.responses import fill_responses
from normprobe.tracing.trace import trace

NEW_SOURCE = '''
"""Additions on one digit."""
from dataclasses import dataclass
import pandas as pd
from normprobe.problems.source import SPLITS, Regime, check_problems

@dataclass(frozen=True)
class Sums:
    largest: int
    name: str = "sums"
    max_new_tokens: int = 12

    @property
    def roles(self):
        return lambda tokens: ["computed" if token.isdigit() else None for token in tokens]

    def load(self, sizes, seed):
        rows = [(f"{s}-{i}", "sum", 1, f"{i} + {i % self.largest} ?", str(i + i % self.largest), s)
                for s in SPLITS for i in range(sizes[s])]
        columns = ["problem_id", "domain", "difficulty", "question", "answer", "split"]
        return check_problems(pd.DataFrame(rows, columns=columns), self.name)

    def score(self, answer, gold):
        return gold in answer

    def fingerprint(self):
        return "1"

    def regimes(self, problems):
        return [Regime("all", 0.0, lambda n, split: problems.head(n))]

def open_named(rest):
    return Sums(int(rest or 9))
'''


def test_a_new_source_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.py").write_text(NEW_SOURCE)
    monkeypatch.setattr(normprobe.problems, "__path__", [*normprobe.problems.__path__, str(tmp_path)])
    source = open_source("sums:7")
    problems = source.load({"sae": 8, "select": 8, "measure": 8}, seed=0)
    opened = open_model("tiny-thinker")
    limit = source.max_new_tokens
    fill_responses(
        tmp_path, HfEngine(opened), problems, max_new_tokens=limit, scorer=source.score, progress=False
    )
    responses = pd.read_parquet(tmp_path / "responses.parquet")
    assert responses["correct"].notna().all()
    tokens, _ = trace(opened, responses, problems, roles=source.roles, progress=False)
    digits = tokens["token"].str.isdigit() & (tokens["segment"] != "prompt")
    assert tokens["role"].eq("computed").equals(digits)
    assert digits.any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "problems.txt",
            "expected problems as a .jsonl, .json, .csv or .parquet file, .* got 'problems.txt'",
        ),
        ("nothing", "got 'nothing'"),
        ("", "got ''"),
        ("scoring", "got 'scoring'"),
        ("../x", "got '../x'"),
        ("absent.jsonl", "expected a file of problems, got absent.jsonl"),
        ("testbed:hard", "expected 'testbed' alone"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as refusal:
        open_source(name)
    assert "\n" not in str(refusal.value)
