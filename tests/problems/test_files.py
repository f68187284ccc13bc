"""The problems of a run: three disjoint splits, from the testbed or a file, refused in one line when unusable."""

from pathlib import Path

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems.files import COLUMNS, bundled_problem_set, read_problem_set

SIZES = {"sae": 64, "select": 32, "measure": 40}


def test_the_testbed_fills_every_split_with_questions_of_its_own() -> None:
    table = bundled_problem_set(SIZES, seed=3)
    assert tuple(table.columns) == COLUMNS
    assert table["split"].value_counts().to_dict() == SIZES
    questions = table.groupby("split")["question"].agg(set)
    assert not questions["sae"] & questions["select"]
    assert not questions["measure"] & (questions["sae"] | questions["select"])
    pd.testing.assert_frame_equal(table, bundled_problem_set(SIZES, seed=3))
    assert set(table["question"]) != set(bundled_problem_set(SIZES, seed=4)["question"])


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
