"""Parts of the pages made from claims, thinking formats and studies themselves, so that they cannot age."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Sequence
from inspect import cleandoc
from pathlib import Path

from normprobe.claims.claim import Claim
from normprobe.claims.registry import CLAIMS
from normprobe.labels import in_words
from normprobe.study_file import read_study
from normprobe.thinking_formats import ELICITED, FORMATS, MODES, Ask, ThinkingFormat

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = ("look_at_one_response", "test_a_claim_on_your_model", "steer_and_measure")
"""The notebooks of examples/, in the order in which they are read."""
STUDIES = ROOT / "sae_training"
IMAGES = ROOT / "docs/images/figures"
SHOWN = ("tiny-thinker", "smol-thinker")
"""The studies whose figures `make gallery` put into IMAGES."""
BY_HAND = "## How it can mislead"
"""Where the part of a claim's page begins that no object knows."""
QUOTED = re.compile(r"\*\(From `(?P<file>tests/\S+\.py)`: (?P<names>[^;]+); put here by `make docs`\.\)\*")
"""A mark in a page: a file of the tests and what stands in its place of it."""
PLAN = re.compile(
    r"at least (?P<time>[\d.,]+ \w+) on a GPU.*; (?P<layer>[\d.]+ GB) a layer, (?P<all>[\d.]+ GB) in all; "
    r"with [\d.]+ GB (?P<fit>[^.]*?)(?: or as many runs with --layers)?\. States.* up to (?P<cache>\S+ GB) a network"
)
"""The note of a study's plan (`normprobe.training_plan`)."""


def notebook_page(name: str) -> str:
    """A notebook of examples/ in Markdown: its text, its code in fences, and links to the other notebooks' pages."""
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(
            f"```python\n{text}\n```" if cell["cell_type"] == "code" else text.replace(".ipynb)", ".md)")
        )
    parts.insert(
        1, f"*This page is the notebook `examples/{name}.ipynb` of the repository, which the tests run.*"
    )
    return "\n\n".join(parts) + "\n"


def with_sources(markdown: str) -> str:
    """A page with the source of tests in the place of its marks (`QUOTED`): functions, classes, constants by name.

    Raises StopIteration for a name that the file lacks.
    """
    return QUOTED.sub(lambda mark: sources(mark["file"], re.findall(r"`(\w+)`", mark["names"])), markdown)


def sources(file: str, names: Iterable[str]) -> str:
    """What a file says under each name, in fences; a text that holds a program is shown as that program."""
    text = (ROOT / file).read_text(encoding="utf-8")
    parts = [f"From `{file}`:"]
    for name in names:
        node = next(node for node in ast.parse(text).body if name in defined(node))
        program = (
            node.value.value if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) else ""
        )
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        part = program or "\n".join(text.splitlines()[first - 1 : node.end_lineno])
        parts.append(f"```python\n{part.strip()}\n```")
    return "\n\n".join(parts)


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a module gives to something."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def claim_page(claim: Claim, by_hand: str) -> str:
    """The page of a claim: what it says of itself around what was written by hand, in Markdown."""
    place, _, estimand = cleandoc(sys.modules[claim.measure.__module__].__doc__ or "").partition("\n\n")
    _, heading, misleading = by_hand.partition(BY_HAND)
    modes = [f"`{mode}`" for mode in MODES if mode in claim.modes]
    tables = [f"`{name}`" for name in sorted(claim.needs)]
    optional = [f"`{name}`" for name in sorted(claim.uses)]
    wanted = f" and, where the run has them, {listed(optional)}" if optional else ""
    figures = [(claim.figure, claim.caption), *((extra.stem, extra.caption) for extra in claim.extra_figures)]
    smallest = f"{claim.smallest_effect:g}"
    parts = [
        f"# {claim.title}",
        f"`{claim.name}`, version {claim.version} · "
        f"[code](../api/claims.md#normprobe.claims.{claim.name}) · [all claims](index.md)",
        f"> {claim.statement}",
        f"**In the paper.** {place}",
        "## What is measured",
        f"In the unit *{claim.unit}*; no effect is {claim.null:g}. The verdict rests on responses in "
        f"{listed(modes)}, and on the [tables](../run_layout.md) {listed(tables)}{wanted}.",
        plain(estimand),
        "## The rule",
        bullets(re.split(r"(?<=[.)]) (?=[A-Zρ])", plain(claim.rule))),
        "## The smallest effect of interest",
        f"**{smallest}** in that unit. {claim.why_smallest}",
        "## The controls",
        "The model has to exceed each of them; what it then exceeds explains nothing any more. A control that cannot "
        "be computed leaves the claim inconclusive.",
        table(
            ("control", "rules out"),
            ((f"**{in_words(name)}**", text) for name, text in claim.rules_out.items()),
        ),
        f"{heading}{misleading}".strip(),
        "## Its figure",
        *(f"`{stem}`: {caption}\n\n{images(stem, claim.title)}" for stem, caption in figures),
        f"Drawn by `normprobe figures RUN --only {claim.name}`, as PDF and PNG, into `RUN/figures/`. "
        f"[The gallery](../figures.md#{claim.figure}) has each study's numbers beneath it.",
        "## What would change the verdict",
        bullets(changes(claim, smallest, listed(modes))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def images(stem: str, asks: str) -> str:
    """A figure of both studies side by side; each leads to itself, as large as it is."""
    drawn = [name for name in SHOWN if (IMAGES / name / f"{stem}.png").is_file()]
    if not drawn:
        return f"Neither study has what it draws: [the gallery](../figures.md#{stem}) says why."
    files = (f"../images/figures/{name}/{stem}.png" for name in drawn)
    cells = (f"[![{asks} {stem} of {name}]({file})]({file})" for name, file in zip(drawn, files, strict=True))
    return table(drawn, [list(cells)])


def changes(claim: Claim, smallest: str, modes: str) -> Iterable[str]:
    """What would turn the verdict on a claim, whatever the run."""
    yield (
        f"`supported` falls where a control, or the value of no effect, comes within {smallest} of the model in any "
        "form: the strongest control in the weakest form decides."
    )
    yield (
        f"`not supported` turns where the model exceeds every control by more than {smallest}, with the margin's whole "
        "interval."
    )
    yield (
        "`inconclusive` ends with more problems (four times as many halve an interval), or with the control or form "
        "that is missing."
    )
    yield f"It is not judged at all where the [conditions](index.md#before-any-claim) fail in {modes}."
    yield (
        "The report computes it for each run: how far the estimate falls short, how much stronger a control would have "
        "to be, about how many problems would settle it."
    )
    if claim.planted:
        yield (
            "`normprobe audit RUN` tries it: where this effect was planted the claim should be supported, on random "
            "networks it should not."
        )


def claims_table() -> str:
    """One line per claim, in the paper's order."""
    rows = ((f"[`{c.name}`]({c.name}.md)", c.title, f"`{c.figure}`") for c in CLAIMS)
    return table(("claim", "asks", "figure"), rows)


def formats_table() -> str:
    """One line per family of `FORMATS`."""
    return table(
        ("family", "marks of the thought", "asked to think", "asked not to"),
        ((f"`{of.name}`", marks(of), asked(of.think), asked(of.no_think)) for of in (*FORMATS, ELICITED)),
    )


def marks(of: ThinkingFormat) -> str:
    """What stands around a thought."""
    return f"{quoted(of.open) if of.open else 'the response itself'} … {quoted(of.close)}"


def asked(ask: Ask | None) -> str:
    """How a mode is asked for, in a table's cell."""
    if ask is None:
        return "as its chat template says"
    ways = [
        *(["an instruction"] if ask.instruction else []),
        *(f"`{name}={value}`" for name, value in ask.kwargs.items()),
        *(f"{what} {quoted(text)}" for what, text in (("system", ask.system), ("then", ask.prefill)) if text),
    ]
    return f"{', '.join(ways) or 'nothing'} ({ask.how})"


def plans_table() -> str:
    """One line per study of sae_training/: its sizes, and what its training takes by its own note."""
    rows = []
    for path in sorted(STUDIES.glob("*.yaml"), key=lambda path: (read_study(path).saes.width, path.name)):
        study, lines = read_study(path), path.read_text(encoding="utf-8").splitlines()
        note = PLAN.search(" ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#")))
        if study.saes.given:
            sizes, plan = ["published", "", ""], ["nothing is trained"] + [""] * 3
        else:
            sizes = [f"{study.saes.width:,}", f"{study.saes.k}", f"{study.saes.n_samples:,}"]
            plan = (
                list(note.group("time", "all", "fit", "cache"))
                if note
                else ["minutes on two cores"] + [""] * 3
            )
        rows.append([f"`{path.name}`", *sizes, *plan])
    head = ("study", "features a layer", "k", "tokens", "at least, on one H100")
    return table((*head, "all layers", "on GPUs of 80 GB", "`--cache`, a network"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. Bars stand in code only, where they end no cell."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def plain(text: str) -> str:
    """A text whose underscores are no emphasis: but for code, in backticks or indented, they are escaped."""
    return re.sub(r"(`[^`]*`|^ {4}.*$)|_", lambda found: found[1] or r"\_", text, flags=re.MULTILINE)


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + list(names[-1:]))


def quoted(text: str) -> str:
    """A text as code, in one short line."""
    line = text.strip().replace("\n", "⏎")
    return f"`{line if len(line) <= 48 else line[:45] + '…'}`"
