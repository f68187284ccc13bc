"""The layout of a run: every table is checked on write and on read, and described for the docs."""

import numpy as np
import pandas as pd
import pytest
from claims_fixture import write_run
from layout_fixture import put

from normprobe.errors import NormprobeError
from normprobe.runs.layout import FILES, columns_markdown
from normprobe.runs.tables import Tables

TABLE = pd.DataFrame(
    {
        "combination": ["plain", "ALRR"],
        "problem_id": ["p0", "p1"],
        "correct": pd.array([True, None], dtype="boolean"),
    }
)


def test_what_is_written_is_read_back(tmp_path):
    put(tmp_path, "combinations", TABLE)
    pd.testing.assert_frame_equal(FILES["combinations"].read(tmp_path), TABLE)
    arrays = {"norm": np.ones((2, 3), np.float32), "surprisal": np.full(3, np.nan, np.float32)}
    put(tmp_path, "signals/early", arrays)
    got = FILES["signals/early"].read(tmp_path)
    assert all(np.array_equal(got[name], arrays[name], equal_nan=True) for name in arrays)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.drop(columns="correct"), "got no correct"),
        (lambda t: t.assign(extra=1), "got extra besides"),
        (lambda t: t.assign(correct=[0.5, 1.0]), "expected 'correct' as flag in .*, got float64"),
        (lambda t: t.assign(problem_id=[1, 2]), "expected 'problem_id' as text in .*, got int64"),
        (lambda t: t.assign(problem_id=["p0", None]), "expected no missing values in 'problem_id' .* got 1"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_on_write_and_on_read(tmp_path, change, message):
    file = FILES["combinations"]
    folder = tmp_path / file.stage
    folder.mkdir()
    with pytest.raises(NormprobeError, match=message) as error:
        file.write(folder, change(TABLE))
    assert "combinations.parquet" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(folder.iterdir())
    change(TABLE).to_parquet(tmp_path / file.path)
    with pytest.raises(NormprobeError, match=message):
        _ = Tables(tmp_path).combinations


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"norm": np.ones((2, 3), np.float32)}, "got no surprisal"),
        ({"norm": np.ones((2, 3)), "surprisal": np.ones(3, np.float32)}, "'norm' as float32 .* got float64"),
        (
            {"norm": np.ones(3, np.float32), "surprisal": np.ones(3, np.float32)},
            r"'norm' as .*\[layer, token\]",
        ),
        (
            {"norm": np.ones((2, 3), np.float32), "surprisal": np.ones(4, np.float32)},
            "arrays of as many tokens each .* got 3 and 4",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(NormprobeError, match=message):
        FILES["signals/model"].write(tmp_path, arrays)
    assert not list(tmp_path.iterdir())


def test_missing_values_keep_a_column_of_integers_one(tmp_path):
    problems = pd.DataFrame({"problem_id": ["a", "b"], "difficulty": pd.array([1, None], dtype="Int64")})
    put(tmp_path, "problems", problems.assign(domain=None, answer=None))
    assert FILES["problems"].read(tmp_path)["difficulty"].isna().tolist() == [False, True]
    with pytest.raises(NormprobeError, match="'answer' as text"):
        put(tmp_path, "problems", problems.assign(domain=None, answer=[0.5, None]))


def test_a_column_may_be_absent_where_the_layout_says_so(tmp_path):
    put(tmp_path, "suppression", pd.DataFrame({"problem_id": ["p0"], "correct": [True]}))
    assert "on_same_tokens" not in FILES["suppression"].read(tmp_path)


def test_every_file_of_a_run_is_in_the_layout(tmp_path):
    run = write_run(tmp_path / "run", n_problems=1)
    known = {file.path for file in FILES.values()}
    assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} <= known
    assert len(known) == len(FILES)


def test_the_docs_list_every_column():
    text = columns_markdown()
    for file in FILES.values():
        assert f"## {file.path}\n" in text
        for schema in (file.columns, file.arrays):
            assert schema is None or all(f"| `{name}` |" in text for name in schema.by_name)
