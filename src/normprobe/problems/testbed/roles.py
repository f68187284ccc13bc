"""The role of every token of a response, read from the grammar alone: right or wrong, a model wrote it."""

from collections.abc import Sequence

from normprobe.problems.testbed.domains import Role
from normprobe.problems.testbed.vocabulary import END, END_THINK, PLAN_LINKS, RESULT_LINKS, STEP_LINKS

_FORMAT = {";", ",", ":", "plan", "answer", END, END_THINK}
_LINKS = {*PLAN_LINKS, *STEP_LINKS, *RESULT_LINKS}


def roles(tokens: Sequence[str]) -> list[Role | None]:
    """Roles of the tokens of one response (thought, `</think>`, answer), as the reference thoughts have them.

    In the plan, what is sought is `plan`; in a step, the last token before `;` is `computed` and the rest is `copied`;
    after `</think>` the value is `answer`. Links are `connective`, everything fixed is `format`. None stands
    for text outside the grammar: a step that was cut off, or anything between two steps that no link opens.
    """
    found: list[Role | None] = [None] * len(tokens)
    part: Role | None = None if END_THINK in tokens or "plan" in tokens else "answer"
    for i, token in enumerate(tokens):
        if token == "plan":
            part = "plan"
        elif token in STEP_LINKS:
            part = "copied"
        elif token in {END_THINK, "answer"}:
            part = "answer"
        if token in _FORMAT:
            found[i] = "format"
        elif token in _LINKS:
            found[i] = "connective"
        else:
            found[i] = part
        if token == ";":
            if part == "copied" and found[i - 1] == "copied":
                found[i - 1] = "computed"
            part = None
    if part == "copied":
        _forget_open_step(tokens, found)
    return found


def _forget_open_step(tokens: Sequence[str], found: list[Role | None]) -> None:
    """A step that was never closed might end in a computed token or not: say nothing of its content."""
    for i in range(len(tokens) - 1, -1, -1):
        if tokens[i] in STEP_LINKS:
            return
        if found[i] == "copied":
            found[i] = None
