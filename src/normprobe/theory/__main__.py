"""`normprobe theorem`: the two-sided bound, its assumptions, and every step of its proof checked on the spot."""

from __future__ import annotations

import dataclasses
import sys

from normprobe.console import parse, print_json, run_main
from normprobe.theory.theorem import ASSUMPTIONS, SETUP, STATEMENT, CheckedStep, check_theorem

HOW = """\
A step claims larger ≥ smaller, as larger − smaller = Σ weight · fact + Σ square. Checked: this is an identity (expanded
by sympy), each weight and square is ≥ 0 by the signs of its symbols, and each fact is assumed or was proved above."""


@dataclasses.dataclass(frozen=True)
class TheoremCommand:
    """Print the two-sided bound, its assumptions, and every step of its proof, checked on the spot."""

    json: bool = False
    """print one JSON document instead of text"""


def main(argv: list[str] | None = None) -> int:
    """Command line of `normprobe theorem`; exit code 1 if a step fails."""
    if parse(TheoremCommand, argv, "theorem").json:
        steps = list(check_theorem())
        holds = all(step.holds for step in steps)
        content = {
            "setup": SETUP,
            "assumptions": ASSUMPTIONS,
            "statement": STATEMENT,
            "steps": [dataclasses.asdict(step) | {"holds": step.holds} for step in steps],
            "holds": holds,
        }
        print_json(content)
        return 0 if holds else 1
    print("The two-sided bound (arXiv 2606.06188, section 3), with every constant\n")
    print(SETUP, *(f"  {name}  {text}" for name, text in ASSUMPTIONS.items()), sep="\n")
    print(f"\n{STATEMENT}\n\n{HOW}")
    steps = []
    for step in check_theorem():
        if not steps or steps[-1].part != step.part:
            sizes = "" if len(step.sizes) == 1 else f", each for {', '.join(map(str, step.sizes))} atoms"
            print(f"\n{step.part}{sizes}")
        print(line(step), flush=True)
        steps.append(step)
    failed = sum(not step.holds for step in steps)
    end = "the theorem is proved" if failed == 0 else "this proves nothing"
    print(f"\n{len(steps) - failed} of {len(steps)} steps hold: {end}")
    return 1 if failed else 0


def line(step: CheckedStep) -> str:
    """One step in one line, and one more for each flaw."""
    reasons = dict.fromkeys(reason.partition(":")[0] for reason in step.reasons)
    checked = f"identity, {step.terms} signs" + (f"; from {'; '.join(reasons)}" if reasons else "")
    first = f"  {'✓' if step.holds else '✗'} {step.name}: {step.statement}  [{checked}]"
    return "\n".join([first, *(f"      {flaw}" for flaw in step.flaws)])


if __name__ == "__main__":
    sys.exit(run_main(main))
