"""`normprobe generate` on the bundled model: plain without a profile, under a policy, and refused in one line."""

import json

import pytest

from normprobe.console import run_main
from normprobe.generate import main

QUESTION = "math : a= 4 ; b: a +9 ; ? b"


def answers(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert run_main(main, list(arguments)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_question_of_the_testbed_is_answered_rightly_without_a_profile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = answers(capsys, QUESTION)
    assert line["response"].endswith("answer : 2"), "4 + 9 modulo 11"
    assert (line["triggered"], line["extra_passes"]) == (0, 0)
    (silent,) = answers(capsys, QUESTION, "--mode", "no_think")
    assert silent["tokens"] < line["tokens"]


def test_a_policy_tells_what_it_did_and_a_probe_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"policy": "alrr", "tau": {"9": 0.1}, "blow_up": 1e9, "growth": -1.0}
    (line,) = answers(capsys, QUESTION, "--policy", json.dumps(spec))
    assert line["triggered"] == line["extra_passes"] == line["tokens"]
    (probed,) = answers(capsys, QUESTION, "--policy", json.dumps({"policy": "probe", "tau": {"9": 5.0}}))
    assert probed["triggered"] == 0
    assert probed["scores"]["A"] == pytest.approx(probed["scores"]["A_per_token"] * probed["tokens"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "alrr"], "expected a layer profile to take thresholds from, got none"),
        (["--policy", "{alrr"], "expected a policy as a name or as JSON"),
        (["--max-new-tokens", "0"], "expected at least one new token"),
        (["--max-new-tokens", "5000"], "expected prompt and response within the model's"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_main(main, [QUESTION, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
