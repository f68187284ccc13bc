"""`normprobe theorem`: every step of the proof holds, the page names them all, and a broken step is reported."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from sympy import Symbol

from normprobe.theory import __main__ as command
from normprobe.theory.certificates import Certificate, Fact, Proof
from normprobe.theory.theorem import ASSUMPTIONS, PARTS, CheckedStep, ProofPart, check_theorem

PAGE = (Path(__file__).parents[2] / "docs/theorem.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def steps() -> list[CheckedStep]:
    return list(check_theorem())


def test_every_step_of_every_part_holds(steps: list[CheckedStep]) -> None:
    assert all(step.holds for step in steps)
    assert {step.part for step in steps} == {part.title for part in PARTS}
    reasons = {reason.partition(":")[0] for step in steps for reason in step.reasons}
    assert ASSUMPTIONS.keys() <= reasons


def test_the_page_names_every_numbered_step_and_no_other(steps: list[CheckedStep]) -> None:
    numbered = {match[0] for step in steps if (match := re.match(r"\d\w?|signed \d", step.name))}
    proof = PAGE[PAGE.index("## Proof") : PAGE.index("## What can fail")]
    named: set[str] = set()
    for inside in re.findall(r"\((signed \d(?:, \d)*|\d[a-e]?(?:, \d[a-e])*)\)", proof.replace("\n", " ")):
        words = inside.removeprefix("signed ").split(", ")
        named |= {f"signed {word}" for word in words} if inside.startswith("signed") else set(words)
    assert named == numbered


def test_the_command_prints_a_line_per_step(
    steps: list[CheckedStep], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  ✓ ") == len(steps)
    assert "✗" not in shown
    assert f"{len(steps)} of {len(steps)} steps hold" in shown


def test_a_step_that_fails_is_reported_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = (Symbol(name, nonnegative=True) for name in "xy")
    order = Fact("x ≥ y", x - y)
    step = Certificate("1", "x² ≥ xy", x**2, x * y, [(x, order)])
    parts = [ProofPart("A hole", lambda k: Proof([order] if k == 1 else [], [step]), (1, 2))]
    monkeypatch.setattr(command, "check_theorem", partial(check_theorem, parts))
    assert command.main([]) == 1
    shown = capsys.readouterr().out
    assert "✗ 1: x² ≥ xy" in shown
    assert "k = 2: “x ≥ y” is neither assumed nor certified before" in shown
    assert "k = 1:" not in shown
    assert command.main(["--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert not content["holds"]
    assert [one["holds"] for one in content["steps"]] == [False]
