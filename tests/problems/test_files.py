"""A user's problems: split three ways, judged, tried methods on, and refused in one line when unusable."""

from pathlib import Path

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems import open_source
from normprobe.problems.files import read_problem_set
from normprobe.problems.source import COLUMNS


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_file_needs_questions_only(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    given = pd.DataFrame(
        {"question": [f"what is {i}?" for i in range(200)], "answer": [str(i) for i in range(200)]}
    )
    if suffix == ".parquet":
        given.to_parquet(path)
    else:
        given.to_json(path, orient="records", lines=True)
    table = read_problem_set(path, seed=0)
    assert tuple(table.columns) == COLUMNS
    assert table["answer"].tolist() == given["answer"].tolist(), "answers stay text"
    assert table["problem_id"].is_unique
    assert table["domain"].isna().all()
    shares = table["split"].value_counts(normalize=True)
    assert 0.4 < shares["sae"] < 0.6
    assert read_problem_set(path, seed=0)["split"].equals(table["split"])


def rows(n: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"question": [f"q{i}" for i in range(n)], **columns})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows(100).rename(columns={"question": "prompt"}), "got no such column"),
        (rows(0), "got 0 in 0 rows"),
        (rows(100, problem_id=["a"] * 100), "got 'a' twice"),
        (rows(100, split=["train"] * 100), r"got \['train'\]"),
        (rows(9, split=["sae"] * 9), "in split 'select'"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    path = tmp_path / "problems.parquet"
    table.to_parquet(path)
    with pytest.raises(NormprobeError, match=message) as refusal:
        read_problem_set(path, seed=0)
    assert "\n" not in str(refusal.value)


def test_other_and_corrupt_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "problems.csv").write_text("question\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "cut.jsonl").write_text('{"question": "q')
    for name, message in {
        "problems.csv": "expected problems in a .parquet or .jsonl file",
        "cut.parquet": "expected readable problems",
        "cut.jsonl": "expected readable problems",
        "absent.parquet": "expected readable problems",
    }.items():
        with pytest.raises(NormprobeError, match=message) as refusal:
            read_problem_set(tmp_path / name, seed=0)
        assert "\n" not in str(refusal.value)


def test_a_file_is_a_source_of_its_own_problems_and_judge(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    rows(100, answer=[str(i) if i % 2 else None for i in range(100)]).to_parquet(path)
    source = open_source(str(path))
    problems = source.load({}, seed=0)
    pd.testing.assert_frame_equal(problems, read_problem_set(path, seed=0))
    assert source.score("it is 1,234.", "1234")
    assert source.roles is None

    greedy, sampled = source.regimes(problems)
    assert (greedy.temperature, sampled.temperature) == (0, 1)
    tune, test = greedy.problems(5, "tune"), greedy.problems(1000, "test")
    assert len(tune) == 5
    assert set(tune["problem_id"]) <= set(problems.loc[problems["split"] == "select", "problem_id"])
    judged = (problems["split"] == "measure") & problems["answer"].notna()
    assert test["problem_id"].tolist() == problems.loc[judged, "problem_id"].tolist()


def test_the_fingerprint_of_a_file_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "q"}')
    before = open_source(str(path)).fingerprint()
    assert open_source(str(path)).fingerprint() == before
    path.write_text('{"question": "p"}')
    assert open_source(str(path)).fingerprint() != before


def test_methods_are_not_tried_where_nothing_can_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    rows(100).to_parquet(path)
    source = open_source(str(path))
    with pytest.raises(NormprobeError, match="expected gold answers in split 'select'"):
        source.regimes(source.load({}, seed=0))
