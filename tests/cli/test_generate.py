"""`normprobe generate` on the bundled model: plain without a profile, under a policy, in a terminal, and refused in one
line."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from normprobe.console import run_main
from normprobe.generate import main

QUESTION = "math : a= 4 ; b: a +9 ; ? b"


def answers(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert run_main(main, [*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["answers"]


def test_a_question_of_the_testbed_is_answered_rightly_without_a_profile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = answers(capsys, QUESTION)
    assert line["response"].endswith("answer : 2"), "4 + 9 modulo 11"
    assert (line["triggered"], line["extra_passes"]) == (0, 0)
    assert "".join(line["pieces"]).strip() == line["response"].strip()
    assert len(line["norms"]) == len(line["pieces"]) == line["tokens"] - 1, "the end token has no piece"
    assert min(line["norms"]) > 0
    (silent,) = answers(capsys, QUESTION, "--mode", "no_think")
    assert silent["tokens"] < line["tokens"]


def test_a_policy_tells_what_it_did_and_a_probe_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"policy": "alrr", "tau": {"9": 0.1}, "blow_up": 1e9, "growth": -1.0}
    (line,) = answers(capsys, QUESTION, "--policy", json.dumps(spec))
    assert line["triggered"] == line["extra_passes"] == line["tokens"]
    (probed,) = answers(capsys, QUESTION, "--policy", json.dumps({"policy": "probe", "tau": {"9": 5.0}}))
    assert probed["triggered"] == 0
    assert probed["scores"]["A"] == pytest.approx(probed["scores"]["A_per_token"] * probed["tokens"])


def test_words_that_the_model_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, ["What is 2 + 3 ? What", QUESTION, "--max-new-tokens", "4"]) == 0
    assert (
        capsys.readouterr().err
        == "normprobe: tiny-thinker does not know 'What', '+' and reads each as <|unk|>\n"
    )
    assert run_main(main, [QUESTION, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().err == ""


def test_without_a_terminal_the_answer_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = answers(capsys, QUESTION)
    assert run_main(main, [QUESTION]) == 0
    assert capsys.readouterr().out == f"{line['response']}\n"
    assert run_main(main, [QUESTION, QUESTION, "--policy", '{"policy": "probe", "tau": {"9": 5.0}}']) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first == second.rstrip("\n")
    assert first.startswith(f"> {QUESTION}\n{line['response']}\npolicy: acted on 0 states")


def in_a_terminal(*arguments: str, **environment: str) -> tuple[str, str]:
    """What the command shows on a terminal, and on stderr, which is a pipe."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "normprobe", "generate", *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(
        command, stdout=follower, stderr=subprocess.PIPE, env=variables | {"TERM": "xterm"} | environment
    )
    os.close(follower)
    with os.fdopen(leader, "rb") as shown:
        text = b""
        try:
            while part := shown.read1():
                text += part
        except OSError:  # on Linux the leader's end of file is an error
            pass
    assert done.returncode == 0
    return text.decode().replace("\r\n", "\n"), done.stderr.decode()


def test_a_terminal_shows_tokens_shaded_and_no_bar_where_stderr_is_a_pipe() -> None:
    text, errors = in_a_terminal(QUESTION)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    answer, legend = plain.rstrip("\n").split("\n")
    assert answer.endswith("</think> answer : 2")
    assert legend.startswith("norm after layer 10 of 0…11: ")
    assert len(set(re.findall(r"48;5;(\d+)m", text.split("\n")[0]))) > 2
    assert "it/s" not in errors
    assert in_a_terminal(QUESTION, NO_COLOR="1")[0] == f"{answer}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "alrr"], "expected a layer profile to take thresholds from, got none"),
        (["--policy", "{alrr"], "expected a policy as a name or as JSON"),
        (["--max-new-tokens", "0"], "expected at least one new token"),
        (["--layer", "12"], "expected a layer of 0…11, got 12"),
        (["--max-new-tokens", "5000"], "expected prompt and response within the model's"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_main(main, [QUESTION, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
