"""The verdict table as aligned plain text (the terminal) and as Markdown (the README); the assumption table.

Every number stands above the controls that could have sunk it, in one column: an estimate alone is not evidence.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from normprobe.claims.evidence import Control, Decision, Evidence
from normprobe.claims.measure.readers import READER_NAMES
from normprobe.labels import in_words
from normprobe.stats.verdict import holm

WIDTH = 110
SHAPES = {"supported": "●", "not supported": "✕", "inconclusive": "◐", "vacuous": "○"}
_NAME, _VERDICT = 48, 18
HOLM = (
    "Holm p: how often, over resampled problems, the margin is no larger than the smallest effect of interest "
    "(one-sided), adjusted by Holm for the number of claims judged by a margin; it changes no verdict."
)

Cells = tuple[list[str], list[list[str]]]
"""Head and rows of a table of text."""


def cells(rows: Sequence[Mapping[str, str]]) -> Cells:
    """Head and rows of a table whose rows give each column's cell by its name."""
    return list(rows[0]) if rows else [], [list(row.values()) for row in rows]


def number(value: float) -> str:
    """Three significant digits, thousands in full, a dash for what is not there: 0.0123, 1.20, 14,200, –."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 6 or magnitude < -4:
        return f"{value:.2e}"
    rounded = round(value, 2 - magnitude)
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def with_interval(estimate: float, interval: Sequence[float]) -> str:
    """`0.42 [0.31, 0.53]`, to as many decimals as the interval's width deserves (two digits of it); the estimate alone
    where there is no interval."""
    low, high = interval
    if math.isnan(low) and math.isnan(high):
        return number(estimate)
    decimals = _decimals(estimate, low, high)
    if decimals is None:
        return f"{number(estimate)} [{number(low)}, {number(high)}]"
    form = f"z,.{decimals}f"  # z: what rounds to zero has no sign
    value = format(estimate, form) if math.isfinite(estimate) else number(estimate)
    return f"{value} [{low:{form}}, {high:{form}}]"


def _decimals(estimate: float, low: float, high: float) -> int | None:
    """Decimals for two digits of the interval's width; None where numbers this large or small need an exponent."""
    sizes = [abs(value) for value in (estimate, low, high) if not math.isnan(value)]
    if not 0 < high - low < math.inf or max(sizes) >= 1e6:
        return None
    decimals = max(0, 1 - math.floor(math.log10(high - low)))
    return decimals if decimals <= 5 else None


def marked(verdict: str, allowed: str = "") -> str:
    """The verdict by shape and word, so that it reads without colour; † if it rests on `Evidence.allowed`."""
    return f"{SHAPES[verdict]} {verdict}{' †' if allowed else ''}"


def allowed(evidence: Sequence[Evidence]) -> list[str]:
    """What the mark † means: one line, if anything has it."""
    return footnotes(item.allowed for item in evidence)


def footnotes(conditions: Iterable[str]) -> list[str]:
    """As `allowed`, from the failed conditions alone, "" where there are none."""
    named = "; ".join(dict.fromkeys(part for line in conditions for part in line.split("; ") if part))
    return [f"† rests on conditions that have failed and were allowed: {named}"] if named else []


def holm_p(evidence: Sequence[Evidence]) -> list[str]:
    """The p of each claim's margin, adjusted over the claims that have one: `Holm p 0.005`; empty for the others."""
    p = np.array([item.decision.p for item in evidence], dtype=float)
    tested = np.isfinite(p)
    p[tested] = holm(p[tested])
    return [f"Holm p {value:.3f}" if known else "" for value, known in zip(p, tested, strict=True)]


def verdict_table(evidence: Sequence[Evidence]) -> str:
    """The table `python -m normprobe.verify` prints, at most `WIDTH` columns: a block per claim.

    A block holds the claim with its verdict, estimate and 95 % interval; n and the unit; in the estimate's column each
    of its controls, then the margin that decides with its p; and the note in plain words. What p is stands below.
    """
    lines = [_row("claim, its controls", "verdict", "estimate [95 % interval]"), "─" * WIDTH]
    for item, p in zip(evidence, holm_p(evidence), strict=True):
        lines.append(_row(item.claim, marked(item.verdict, item.allowed), value(item)))
        lines += textwrap.wrap(
            f"  n = {count(item.n)} {item.n_unit}; {unit(item)}", WIDTH, subsequent_indent="  "
        )
        for control in item.own_controls:
            *above, name = textwrap.wrap(_named(control), _NAME - 4) or [""]
            lines += [f"  {part}" for part in above]
            lines.append(_row(f"  {name}", "", value(control)))
        lines.append(_row("  estimate − strongest control (decides)", p, margin(item.decision)))
        lines += textwrap.wrap(in_words(item.note), WIDTH, initial_indent="  → ", subsequent_indent="    ")
        lines.append("")
    below = [HOLM, *allowed(evidence)]
    return "\n".join(
        [*lines, *(part for text in below for part in textwrap.wrap(text, WIDTH, break_on_hyphens=False))]
    )


def markdown_table(evidence: Sequence[Evidence]) -> str:
    """The table of a README: one row per claim, with its estimate, its controls and the margin that decides."""
    rows = []
    for item, p in zip(evidence, holm_p(evidence), strict=True):
        controls = (f"{_named(control)}: {value(control)}" for control in item.own_controls)
        rows.append(
            {
                "claim": f"`{item.claim}`",
                "verdict": marked(item.verdict, item.allowed),
                "estimate [95 % interval]": f"{value(item)}<br>{unit(item)}",
                "controls": "<br>".join(controls) or "–",
                "margin that decides": "<br>".join(filter(None, (margin(item.decision), p))),
                "n": f"{count(item.n)} {item.n_unit}",
            }
        )
    return markdown(*cells(rows))


def assumption_table(series: pd.DataFrame) -> Cells:
    """From the series of the claim `assumptions`: one row per quantity, one column per reader.

    A cell reads `0.071 to 0.083 (0/10)`: the lowest and the highest layer, and in how many of the layers it holds.
    """
    rows = []
    for _, of_quantity in series.groupby("quantity", sort=False):
        first = of_quantity.iloc[0]
        asked = {
            "Quantity": f"{first['assumption']}: {first['quantity']}",
            "Threshold": f"{first['direction']} {first['threshold']:.3g}",
            "Decides": "yes" if first["decides"] else "no",
        }
        by_reader = dict(iter(of_quantity.groupby("reader")))
        rows.append(
            asked | {name: _given(by_reader[key]) for key, name in READER_NAMES.items() if key in by_reader}
        )
    return cells(rows)


def _given(rows: pd.DataFrame) -> str:
    low, high = number(float(rows["value"].min())), number(float(rows["value"].max()))
    span = low if low == high else f"{low} to {high}"
    return f"{span} ({int(rows['passes'].sum())}/{len(rows)})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in (head, *rows))
    first, *others = (f"| {' | '.join(line)} |" for line in escaped)
    return "\n".join([first, "|" + "---|" * len(head), *others])


def count(n: int) -> str:
    return f"{n:,}"


def span(fewest: int, most: int) -> str:
    """`36 to 2,048`, or one number where both are the same."""
    return " to ".join(dict.fromkeys((count(fewest), count(most))))


def value(measured: Evidence | Control) -> str:
    """An estimate with its interval."""
    return with_interval(measured.estimate, measured.interval)


def margin(decision: Decision) -> str:
    """The margin that decides, with its interval."""
    return with_interval(decision.margin, decision.interval)


def unit(evidence: Evidence) -> str:
    """The unit of an estimate, with the form that it is measured in."""
    return in_words(evidence.full_unit)


def _named(control: Control) -> str:
    name = in_words(control.label)
    return name if control.decides else f"{name} (not counted)"


def _row(name: str, verdict: str, number: str) -> str:
    return f"{name:<{_NAME}}{verdict:<{_VERDICT}}{number}".rstrip()
