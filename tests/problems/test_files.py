"""A user's problems: split three ways by question, judged, tried methods on, and refused in one line when unusable."""

import base64
import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems import open_source
from normprobe.problems.files import read_problem_set
from normprobe.problems.problem_rows import _split
from normprobe.problems.source import COLUMNS

Rows = list[dict[str, Any]]


def zst(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zst,
}


def rows(n: int = 100, **cells: Any) -> Rows:
    return [
        {"question": f"what is {i}?"}
        | {name: cell(i) if callable(cell) else cell for name, cell in cells.items()}
        for i in range(n)
    ]


def encoded(given: Rows, suffix: str, folder: Path) -> bytes:
    if suffix == ".parquet":
        pd.DataFrame(given).to_parquet(folder / "plain.parquet")
        return (folder / "plain.parquet").read_bytes()
    if suffix == ".csv":
        return pd.DataFrame(given).to_csv(index=False).encode()
    text = json.dumps(given) if suffix == ".json" else "\n".join(map(json.dumps, given))
    return text.encode()


def write(folder: Path, given: Rows, name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_bytes(encoded(given, path.suffix, folder))
    return path


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_a_file_needs_questions_only(tmp_path: Path, suffix: str, packed: str) -> None:
    path = tmp_path / f"my.set{suffix}{packed}"
    given = rows(200, answer=str)
    path.write_bytes(PACKED[packed](encoded(given, suffix, tmp_path)))
    table = read_problem_set(path, seed=0)
    assert tuple(table.columns) == COLUMNS
    assert table["answer"].tolist() == [row["answer"] for row in given], "answers stay text"
    assert table["problem_id"].tolist() == [f"my.set-{i:05d}" for i in range(200)]
    assert table["split"].tolist() == [_split(f"0/{name}") for name in table["problem_id"]]
    assert table["domain"].isna().all()
    assert read_problem_set(path, seed=1)["split"].tolist() != table["split"].tolist()
    assert open_source(str(path)).name == str(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, encoding: str) -> None:
    for name in ("mine.csv", "mine.json", "mine.jsonl"):
        path = write(tmp_path, rows(question=lambda i: f"größer als {i}?"), name)
        path.write_bytes(path.read_bytes().decode().encode(encoding))
        assert read_problem_set(path, seed=0)["question"].str.contains("als").all()


def test_json_may_hold_its_rows_under_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"version": 1, "data": rows()}))
    assert len(read_problem_set(path, seed=0)) == 100


DATA_SETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GSM8K": (
        {"question": lambda i: f"How many are {i}?", "answer": lambda i: f"We count <<{i}={i}>>.\n#### {i}"},
        {},
    ),
    "MATH": (
        {
            "problem": lambda i: f"Find {i}.",
            "level": lambda i: f"Level {i % 5 + 1}",
            "type": "Algebra",
            "solution": lambda i: rf"So $x = \boxed{{\frac{{{i}}}{{7}}}}$.",
        },
        {"domain": "Algebra", "difficulty": 3},
    ),
    "AIME": (
        {"ID": lambda i: f"2024-I-{i}", "Problem": lambda i: f"Find {i}.", "Answer": lambda i: i},
        {"answer": "2"},
    ),
    "Omni-MATH": (
        {
            "problem": lambda i: f"Find {i}.",
            "answer": str,
            "difficulty": lambda i: 4.5 if i % 2 == 0 else 5.0,
            "domain": lambda i: ["Mathematics -> Algebra", "Mathematics -> Geometry"],
            "solution": "no box in it",
        },
        {"answer": "2", "difficulty": 4.5, "domain": "Mathematics -> Algebra"},
    ),
    "MMLU": (
        {
            "question": lambda i: f"Which is {i}?",
            "subject": "law",
            "choices": lambda i: ["a", "b"],
            "answer": 1,
        },
        {"answer": "B", "domain": "law"},
    ),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    columns, expected = DATA_SETS[name]
    given = [
        {key: value(i) if callable(value) else value for key, value in columns.items()} for i in range(100)
    ]
    path = write(tmp_path, given)
    table = read_problem_set(path, seed=0)
    row = table.iloc[2]
    assert row[list(expected)].to_dict() == expected
    assert table["answer"].notna().all()
    score = open_source(str(path)).score
    right = {"GSM8K": "It is 2.", "MATH": r"\frac{2}{7}", "MMLU": "(B)"}.get(name, "2")
    assert score(right, row["answer"])
    assert not score("9", row["answer"])


def test_choices_are_shuffled_by_the_seed_and_lettered(tmp_path: Path) -> None:
    given = [
        {"Question": f"Which is {i}?", "Correct Answer": "right\n", "High-level domain": "Physics"}
        | {f"Incorrect Answer {k}": f"wrong {k}" for k in (1, 2, 3)}
        for i in range(200)
    ]
    path = write(tmp_path, given, "gpqa.csv")
    table, again, other = (read_problem_set(path, seed) for seed in (0, 0, 1))
    assert table.equals(again)
    assert table["answer"].tolist() != other["answer"].tolist()
    assert 0.15 < table["answer"].eq("A").mean() < 0.35
    for question, letter in zip(table["question"], table["answer"], strict=True):
        assert f"({letter}) right" in question
        assert all(f") wrong {k}" in question for k in (1, 2, 3))
    assert table["domain"].eq("Physics").all()


def test_exact_numbers_stay_exact_beside_missing_ones(tmp_path: Path) -> None:
    path = write(tmp_path, rows(answer=lambda i: 9007199254740993 + i if i % 2 else None))
    table = read_problem_set(path, seed=0)
    assert table["answer"][1] == "9007199254740994"
    assert table["answer"].isna().sum() == 50
    cells = write(tmp_path, rows(answer=lambda i: "NA" if i else ""), "mine.csv")
    assert read_problem_set(cells, seed=0)["answer"].tolist()[1:] == ["NA"] * 99


def test_a_question_stands_in_one_split(tmp_path: Path) -> None:
    given = rows(300, question=lambda i: f" What  is {i % 100}?" if i < 100 else f"what is {i % 100}? ")
    table = read_problem_set(write(tmp_path, given), seed=0)
    splits = table.assign(key=[i % 100 for i in range(300)]).groupby("key")["split"].nunique()
    assert splits.eq(1).all()
    assert table["split"][:100].tolist() == [_split(f"0/mine-{i:05d}") for i in range(100)]


def test_text_of_any_kind_is_kept(tmp_path: Path) -> None:
    names = ["$100 & up", "代数", "_hidden", "<b>"]
    path = write(tmp_path, rows(domain=lambda i: names[i % 4], difficulty=lambda i: ["hard", "easy"][i % 2]))
    table = read_problem_set(path, seed=0)
    assert set(table["domain"]) == set(names)
    assert set(table["difficulty"]) == {"hard", "easy"}


def in_row_4(**cells: Any) -> Rows:
    return [row | cells if i == 3 else row for i, row in enumerate(rows(answer=str))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"prompt": "q", "gold": "a"}] * 100, "got only 'prompt', 'gold'; add or rename the column"),
        ([], "got no rows"),
        (rows(3), r"got \d of 3 in all; give more problems \(some 40"),
        (in_row_4(question=None), r"'question' in every row of .*, got nothing in row 4"),
        (in_row_4(question="  "), "got ' ' .* in row 4"),
        (in_row_4(question=7), r"got 7 \(int\) in row 4"),
        (in_row_4(question=["q"]), r"\(list\) in row 4"),
        (in_row_4(question="\ud800"), "half of a surrogate pair in row 4"),
        (in_row_4(answer=""), "got '' .*in row 4"),
        (in_row_4(answer=r"\boxed{}"), "an answer that can be judged .* in row 4"),
        (in_row_4(answer=True), r"got True \(bool\) in row 4"),
        (in_row_4(answer={"text": "4"}), r"\(dict\) in row 4"),
        (in_row_4(answer=[]), r"list of accepted ones .* in row 4"),
        (in_row_4(answer=["a", ""]), "in row 4"),
        (in_row_4(answer=float("inf")), "a finite answer .* in row 4"),
        (in_row_4(domain={"a": 1}), "a domain as text .* in row 4"),
        (in_row_4(difficulty=True), "a difficulty as a number or text .* in row 4"),
        (rows(split=lambda i: 3 if i == 3 else "sae"), "a split .* in row 4"),
        (rows(problem_id="a"), "got 'a' twice"),
        (rows(problem_id=lambda i: None if i == 3 else i), "'problem_id' .*nothing in row 4"),
        (rows(split="train"), r"got \['train'\]"),
        (rows(9, split="sae"), "in split 'select'"),
        (
            rows(99, question=lambda i: f"q{i % 98}", split=lambda i: ("sae", "select", "measure")[i % 3]),
            "got that of row 99 in 'measure' and, in row 1, in 'sae'",
        ),
        ([{"problem": f"q{i}", "solution": "so 4"} for i in range(99)], r"a solution with \\boxed"),
        (rows(choices=lambda i: ["a", "b"], answer=2), "an answer among the choices .* in row 1"),
        (rows(choices="a, b", answer=0), "a list of choices .* in row 1"),
    ],
)
def test_unusable_cells_are_refused_in_one_line(tmp_path: Path, given: Rows, message: str) -> None:
    with pytest.raises(NormprobeError, match=message) as refusal:
        read_problem_set(write(tmp_path, given), seed=0)
    assert "\n" not in str(refusal.value)
    assert "mine.jsonl" in str(refusal.value)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "problems.parquet"
    pd.DataFrame({"question": []}).to_parquet(path)
    with pytest.raises(NormprobeError, match="got no rows"):
        read_problem_set(path, seed=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("problems.txt", b"question\n", "expected problems in a .jsonl, .json, .csv or .parquet file"),
        ("cut.parquet", b"PAR1 and no more", "expected readable problems"),
        ("cut.jsonl", b'{"question": "a"}\n{"question": "q', "line 2"),
        ("list.jsonl", b"[1, 2]", "line 1 is list"),
        ("text.json", b'"question"', "neither a list"),
        ("latin.csv", "question\nGröße?\n".encode("latin-1"), "expected readable problems"),
        ("ragged.csv", b"question,answer\nq,1,2\n", "row 1 has more or fewer cells"),
        ("open.csv", b'question\n"q', "expected readable problems"),
        ("plain.jsonl.gz", b'{"question": "a"}', "expected readable problems"),
        ("cut.jsonl.gz", gzip.compress(b"a" * 1000, mtime=0)[:20], "expected readable problems"),
        ("plain.jsonl.zst", b"no zstd", "expected readable problems"),
        ("plain.csv.xz", b"no xz", "expected readable problems"),
    ],
)
def test_other_and_corrupt_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NormprobeError, match=message) as refusal:
        read_problem_set(tmp_path / name, seed=0)
    assert "\n" not in str(refusal.value)


def test_whichever_byte_of_a_tables_schema_is_damaged(tmp_path: Path) -> None:
    """pyarrow's errors share no base with OSError and ValueError: a width of integers that it lacks is another."""
    path = tmp_path / "k.parquet"
    pd.DataFrame({"question": ["a"], "k": np.array([1], np.int16)}).to_parquet(path)
    content = path.read_bytes()
    found = re.search(rb"ARROW:schema.{2,4}?(?=/////)([A-Za-z0-9+/=]+)", content, re.DOTALL)
    assert found is not None
    schema, told = base64.b64decode(found[1]), set[str]()
    for at in range(len(schema)):
        damaged = base64.b64encode(schema[:at] + b"\x7f" + schema[at + 1 :])
        path.write_bytes(content.replace(found[1], damaged))
        try:
            read_problem_set(path, seed=0)
        except NormprobeError as refusal:
            told.add(str(refusal))
    assert any("not implemented" in text for text in told)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NormprobeError, match="expected readable problems"):
        read_problem_set(tmp_path / "absent.parquet", seed=0)


def test_a_file_is_a_source_of_its_own_problems_and_judge(tmp_path: Path) -> None:
    path = write(tmp_path, rows(answer=lambda i: str(i) if i % 2 else None), "mine.parquet")
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
    source = open_source(str(write(tmp_path, rows())))
    with pytest.raises(NormprobeError, match="expected gold answers in split 'select'"):
        source.regimes(source.load({}, seed=0))
