"""Numbers in prose are those of tables that a command wrote: the README's as whole phrases, the results' one by one."""

import math
import re
from pathlib import Path

import pytest

from normprobe.claims.registry import CLAIMS

ROOT = Path(__file__).parents[2]
README, RESULTS, FIGURES = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md", "docs/figures.md")
)
WEIGHTS = ROOT / "src/normprobe/problems"
TINY = (WEIGHTS / "testbed/weights/MODEL_CARD.md").read_text(encoding="utf-8")
SMOL = (WEIGHTS / "smol_thinker/weights/sft/MODEL_CARD.md").read_text(encoding="utf-8")
STUDIES = dict(zip(("tiny", "smol"), RESULTS.split("\n## smol-thinker: verdicts\n"), strict=True))
NUMBER = re.compile(r"(?<![\w.,/-])[-−]?\d[\d,]*(?:\.\d+)?(?: ?%)?(?![\w-])")


def prose(text: str) -> str:
    """A page without tables, code, images and the addresses of links, in one line."""
    text = re.sub(r"^```.*?^```$|^\|.*?$|!\[[^]]*\]\([^)]*\)", "", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"`[^`]*`|\]\([^)]*\)", "", text).split())


def cells(text: str, heading: str, name: str) -> list[int]:
    """The percentages of a row of the table under a heading of a model card."""
    (row,) = re.findall(
        rf"^\| {name} \|(.*)\|$", text.split(f"## {heading}\n")[1].split("\n#")[0], re.MULTILINE
    )
    return [int(percent) for percent in re.findall(r"(\d+) \[", row)]


def card(pattern: str, text: str = TINY) -> tuple[str, ...]:
    """What the groups of a pattern are in a model card."""
    found = re.search(pattern, text)
    assert found is not None, pattern
    return found.groups()


def spread(values: list[int]) -> str:
    return f"{min(values)}–{max(values)} %"


def phrases() -> list[str]:
    """Every phrase of the README's prose that holds a measured number, made of what a command wrote."""
    (ratio,) = re.findall(
        r"^\| `thinking_norm_is_higher` \|[^|]*\| ([-\d.]+) ", STUDIES["smol"], re.MULTILINE
    )
    model, twin = card(r"layer-wise ρ is (\S+) here, against (\S+) \(untrained twin\)", RESULTS)
    past_first = sum(claim.version > 1 for claim in CLAIMS)
    late = {
        name: cells(TINY, "no_think", name)[3:] for name in ("arithmetic", "boolean", "pointer", "recall")
    }
    (each,) = card(r"intervals, (\d+) held-out problems a cell")
    (low,) = card(r"### think\n[\s\S]*?\| 100 \[(\d+), 100\]")
    steps, microbatches, tokens = map(
        int, card(r"n_steps (\d+),.*microbatches (\d+), microbatch_tokens (\d+)")
    )
    think = [
        card(rf"- {name}: think (\d+) \[.*?\], no_think (\d+) ", SMOL)
        for name in ("leg_counting", "letter_counting", "knights_knaves", "chain_sum", "spell_backward")
    ]
    greedy, sampled = (
        card(rf"\| 7 \| {how} \| (\d+) \[\S+ \S+ \| (\d+) \[") for how in ("greedy", "sampled")
    )
    right, wrong = zip(*think, strict=True)
    (asked,) = card(r"at least (\d+) % in think", SMOL)
    known = min(map(float, re.findall(r"^\| \w+ \| \d+ \| \d+ \| ([\d.]+) \|", SMOL, re.MULTILINE)))
    assert past_first == 10
    assert [set(cells(TINY, "think", name)) for name in late] == [{100}] * 4
    return [
        f"{100 * math.expm1(float(ratio)):.0f} % higher in thinking on average",
        f"untrained twin's ρ is {twin}, in the paper's direction, and the trained model's {model.replace('-', '−')}.",
        "The rules were written before the data were seen; ten were completed afterwards",
        f"{each} for each domain and difficulty (100 %, intervals from {low} %)",
        f"{spread(late['arithmetic'])} of arithmetic and {spread(late['boolean'])} of boolean problems from four",
        f"{spread(late['pointer'])} of pointers and {spread(late['recall'])} of recall",
        f"it solves {greedy[0]} % of arithmetic problems of seven and eight steps "
        f"({sampled[0]} % sampled at temperature 1), {greedy[1]} % ({sampled[1]} %) of boolean ones",
        f"{steps:,} steps ({steps * microbatches * tokens / 1e6:.0f} M tokens)",
        f"{right[0]} % of leg counting, {right[1]} % of letter counting, {right[2]} % of knights and knaves, "
        f"{right[3]} % of sums and {right[4]} % of words spelled backwards, "
        f"without one in {', '.join(wrong[:-1])} and {wrong[-1]} %",
        f"less than was aimed at ({asked} %)",
        f"More than {math.floor(known)} % of what it writes has a known role",
    ]


NOT_MEASURED = [
    "(arXiv 2606.06188)",
    "Python 3.11 or newer",
    "(seed 0)",
    "Exit code 0 when it ran; with , 1 if a claim is not supported; 2 for bad input",
    "calculates modulo 11",
    "with the states of layer 9 above a norm of 13",
    "seven distractors instead of the training's 0–3",
]
"""Phrases of the README whose numbers are settings or names; the program about layer 9 is run by test_readme.py."""


def test_the_readmes_numbers_are_those_that_commands_wrote():
    text = prose(README)
    for phrase in (*phrases(), *NOT_MEASURED):
        assert phrase in text, phrase
        text = text.replace(phrase, "…")
    assert NUMBER.findall(text) == []


def numbers(text: str) -> list[tuple[float, int]]:
    """Numbers of a text without their signs, a percentage as a share, each with how many decimals it is given to."""
    found = []
    for written in NUMBER.findall(text):
        digits = written.rstrip("% ").lstrip("-−").rstrip(",").replace(",", "")
        shift = 2 if written.endswith("%") else 0
        found.append((float(digits) / 10**shift, len(digits.partition(".")[2]) + shift))
    return found


def lost(text: str) -> list[tuple[float, int]]:
    """What each row of a table with two accuracies lost of the first, as a share."""
    rows = re.findall(r"^\|.*?\| ([\d.]+)% \| ([\d.]+)% \|", text, re.MULTILINE)
    return [((float(before) - float(after)) / 100, 3) for before, after in rows]


def part(title: str) -> str:
    """A section of docs/results.md."""
    return RESULTS.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


VERDICTS = (
    rows(part("tiny-thinker: verdicts"))
    + rows(part("smol-thinker: verdicts"))
    + part("What each verdict says")
)
OF_METHODS = "\n".join(line for line in VERDICTS.splitlines() if "`methods_help`" in line)
COSTS = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "benchmarks/results").glob("*.md")))
SECTIONS = {
    "tiny-thinker: verdicts": (
        VERDICTS,
        ["Two hundred more random networks", "between −0.94 and 0.85 (median 0.09)"],
    ),
    "smol-thinker: verdicts": (
        VERDICTS,
        ["64, 32 and 72", "168 problems", "30 layers over 49,152 words", "4,000"],
    ),
    # 13 + 9 + 4 settings of the table of regimes.
    "Do the methods help?": (rows(part("Do the methods help?")) + OF_METHODS, ["128", "of 26 settings"]),
    "What it costs": (COSTS, ["1.02–1.03", "1.3–1.5", "1.08 with", "32,768"]),
}
"""Section of docs/results.md → what its numbers come from, and what in it is a setting, an aim, a sum or range of such
numbers, or of the audit."""


@pytest.mark.parametrize("title", SECTIONS)
def test_a_number_of_the_results_prose_is_one_of_a_table(title):
    """As large, as a share or in points, at the decimals given; whole ones below ten could be anything's."""
    sources, settings = SECTIONS[title]
    known = [value for value, _ in [*numbers(sources), *lost(sources)]]
    text = prose(part(title))
    for setting in settings:
        assert setting in text, setting
        text = text.replace(setting, "…")
    for interval in re.findall(r"[-−\d.]+ \[[^]]*\]", text):  # as it stands
        assert interval.replace("−", "-") in sources, interval
    for value, decimals in numbers(text):
        shares = [(value, decimals), (value / 100, decimals + 2)]  # points
        near = any(abs(other - share) <= 0.501 / 10**d for share, d in shares for other in known)
        assert near or (value < 10 and decimals == 0), (value, decimals)


def test_the_results_say_of_the_layers_what_verify_said():
    model, twin = card(r"layer-wise ρ is -(\S+) here, against (\S+) \(untrained twin\)", RESULTS)
    said = f"twin has a layer-wise ρ of {twin}, in the paper's direction; the trained model has −{model},"
    assert said in prose(RESULTS)
