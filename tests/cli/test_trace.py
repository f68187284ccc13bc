"""`normprobe trace` on the bundled model: a text, a question with its answer, a file of all layers, and bad input."""

import json

import pandas as pd
import pytest

import normprobe
from normprobe.console import run_main
from normprobe.trace_texts import main

TEXT = "math : a= 4 ; b: a +9 ; ? b"


def test_a_text_is_shown_token_by_token(capsys):
    assert run_main(main, [TEXT, "--layer", "3"]) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert first == "after layer 3 of 0…11; entropy and surprisal in nats"
    assert header.split() == ["position", "token", "segment", "norm", "output_entropy", "surprisal"]
    assert [row.split()[1] for row in rows[:3]] == ["math", "·:", "·a="]
    table = normprobe.trace("tiny-thinker", TEXT, progress=False)
    norms = table.loc[table["layer"] == 3, "norm"].to_numpy()
    assert [float(row.split()[3]) for row in rows] == pytest.approx(norms, rel=1e-5)


def test_a_question_is_answered_and_the_conversation_read(capsys):
    assert run_main(main, [TEXT, TEXT, "--ask", "think", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layer"] == 10, "the last but one"
    tokens = pd.DataFrame(document["tokens"])
    for _, text in tokens.groupby("text"):
        assert list(dict.fromkeys(text["segment"])) == ["other", "thought", "answer"]
        assert "".join(text["token"]).endswith("</think> answer : 2 <|im_end|>")
    assert tokens["surprisal"].isna().sum() == 2, "of the first token of each nothing is known"
    assert run_main(main, [TEXT, "--ask", "no_think", "--json"]) == 0
    assert "thought" not in {row["segment"] for row in json.loads(capsys.readouterr().out)["tokens"]}


@pytest.mark.parametrize("name, read", [("all.csv", pd.read_csv), ("all.parquet", pd.read_parquet)])
def test_a_file_holds_all_layers(name, read, tmp_path, capsys):
    assert run_main(main, [TEXT, "--out", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / name}: 132 rows, 12 layers of 11 tokens\n"
    pd.testing.assert_frame_equal(
        read(tmp_path / name),
        normprobe.trace("tiny-thinker", TEXT, progress=False),
        check_dtype=False,
        rtol=1e-5,
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_no_file(tmp_path, capsys):
    (tmp_path / "d.csv").mkdir()
    assert run_main(main, [TEXT, "--out", str(tmp_path / "d.csv")]) == 2
    assert "expected a file .csv or .parquet" in capsys.readouterr().err


def test_words_that_the_model_does_not_know_are_named(capsys):
    assert run_main(main, ["hello a="]) == 0
    assert capsys.readouterr().err == (
        "normprobe: tiny-thinker does not know 'hello' and reads each as <|unk|>\n"
    )


def test_what_could_steer_a_terminal_is_not_printed(capsys):
    assert run_main(main, ["a= \x1b[31m\n\tb"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\t" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a text, got none"),
        ([""], "expected texts of 1 to 512 tokens, got 0 in text 0; leave it out"),
        ([TEXT, "--layer", "12"], "expected a layer of 0…11, got 12"),
        ([TEXT, "--ask", "think", "--max-new-tokens", "0"], "expected at least one new token"),
        ([TEXT, "--out", "x.txt"], "expected a file .csv or .parquet in a folder that is there, got x.txt"),
        ([TEXT, "--out", "none/x.csv"], "in a folder that is there, got none/x.csv"),
        ([TEXT, "--out", "x.csv", "--json"], "expected one form of output, got --out and --json"),
        ([TEXT, "--out", "x.csv", "--layer", "3"], "expected one form of output, got --out and --layer"),
    ],
)
def test_bad_input_is_refused_in_one_line(capsys, arguments, message):
    assert run_main(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
