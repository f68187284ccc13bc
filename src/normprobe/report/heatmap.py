"""The token heat map: one response, each token a cell shaded by its norm in one layer, its role marked beneath.

After the paper's token-by-token figure (arXiv 2606.06188, layer 34 of 36). Which response and which layer are shown is
a fixed rule, so that nobody picks the excerpt that looks best.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.report.figure import Drawing
from normprobe.report.findings import NothingToDraw
from normprobe.runs.tables import Tables

MOST_TOKENS, COLUMNS = 240, 50
SHADES = 16
"""Colours that a page has for its cells, from light to dark."""
# A shape for each, for black and white: the marker of matplotlib, the same sign as text, filled or not.
ROLE_MARKS = {
    "computed": ("o", "●", True),
    "copied": ("o", "○", False),
    "plan": ("^", "△", False),
    "connective": ("_", "–", True),
    "format": ("|", "|", True),
    "answer": ("s", "■", True),
}


@dataclass(frozen=True)
class Excerpt:
    """The tokens of one response after its prompt, `norm[i]` (activation units) belonging to `tokens[i]`.

    `shade` is the norm between the excerpt's 2nd and 98th percentile, clipped to 0…1; `roles[i]` is None where no
    role is known; `cut` counts tokens left out at the beginning.
    """

    response_id: str
    layer: int
    n_layers: int
    tokens: list[str]
    roles: list[str | None]
    norm: Float[np.ndarray, " token"]
    cut: int
    rule: str

    @property
    def range(self) -> tuple[float, float]:
        low, high = np.percentile(self.norm, [2, 98])
        return float(low), float(high)

    @property
    def shade(self) -> Float[np.ndarray, " token"]:
        low, high = self.range
        return np.clip((self.norm - low) / max(high - low, np.finfo(np.float32).tiny), 0.0, 1.0)

    @property
    def cells(self) -> list[dict[str, Any]]:
        """What a page shows of each token: token, norm, the mark of its role, and which of its `SHADES`."""
        return [
            {"token": token, "norm": norm, "mark": _sign(role), "shade": shade_of(shade)}
            for token, role, norm, shade in zip(self.tokens, self.roles, self.norm, self.shade, strict=True)
        ]

    @property
    def table(self) -> pd.DataFrame:
        """The numbers behind the figure, a row per token."""
        about = {"response_id": self.response_id, "layer": self.layer}
        return pd.DataFrame({"token": self.tokens, "role": self.roles, "norm": self.norm}).assign(**about)

    @property
    def legend(self) -> str:
        """The signs of the roles that occur, in words."""
        return " · ".join(f"{_sign(role)} {role}" for role in ROLE_MARKS if role in self.roles)

    @property
    def caption(self) -> str:
        low, high = self.range
        beginning = f" Its first {self.cut} tokens are left out." if self.cut else ""
        return (
            f"Response {self.response_id} token by token, shaded by the norm after layer {self.layer} of "
            f"0…{self.n_layers - 1} (from {low:.3g} to {high:.3g}, the excerpt's 2nd and 98th percentile; darker is "
            f"higher). Chosen by rule: {self.rule} to measurement problems; the last layer but one.{beginning} "
            f"An illustration by one response, n = {len(self.tokens)} tokens; it is evidence of nothing."
        )


def choose(tables: Tables) -> Excerpt:
    """The excerpt to show, by rule: among complete think responses to measurement problems that are correct (all
    complete ones where nothing is scored), the median by length, ties by id; the last layer but one, as in the paper.

    Raises NothingToDraw when the run has no complete think response to a measurement problem.
    """
    responses = tables.responses
    complete = ~responses["truncated"].astype(bool)
    shown = responses[(responses["split"] == "measure") & (responses["mode"] == "think") & complete]
    scored = shown["correct"].notna().any()
    if scored:
        shown = shown[shown["correct"].fillna(False).astype(bool)]
    if shown.empty:
        raise NothingToDraw(
            "expected a complete think response to a measurement problem for the token heat map, got none; "
            "trace more problems or allow longer responses"
        )
    length = shown["token_ids"].map(len) - shown["n_prompt"]
    ordered = shown.assign(length=length).sort_values(["length", "response_id"])
    response_id = str(ordered["response_id"].iloc[len(ordered) // 2])

    norm, tokens = tables.signals("model")["norm"], tables.tokens
    layer = norm.shape[0] - 2
    rows = np.flatnonzero((tokens["response_id"] == response_id) & (tokens["segment"] != "prompt"))
    cut = max(0, len(rows) - MOST_TOKENS)
    tokens = tokens.iloc[rows[cut:]]
    return Excerpt(
        response_id=response_id,
        layer=layer,
        n_layers=norm.shape[0],
        tokens=[readable(token) for token in tokens["token"]],
        roles=[None if pd.isna(role) else str(role) for role in tokens["role"]],
        norm=np.asarray(norm[layer, rows[cut:]], dtype=np.float64),
        cut=cut,
        rule=f"the median by length of {len(ordered)} {'correct' if scored else 'complete'} think responses",
    )


def readable(token: str) -> str:
    """A token as print: the space markers of byte-pair vocabularies dropped, line breaks and odd characters shown."""

    def in_font(character: str) -> bool:
        """The figures' font has Latin, Greek, Cyrillic and symbols, but no wide scripts and no emoji."""
        return unicodedata.east_asian_width(character) not in "WF" and ord(character) < 0x10000

    return "".join(c if in_font(c) else "□" for c in visible(token))


def visible(token: str) -> str:
    """A token for a page: as `readable`, but in any script; never empty, and with nothing that turns the text around
    it."""
    text = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n").strip(" ").replace("\n", "↵")
    return printable(text) or "␣"


def printable(text: str) -> str:
    """The text with each control character, mark of direction or line separator as □."""
    return "".join(c if c.isprintable() else "□" for c in text)


def drawing(tables: Tables) -> Drawing:
    """The figure of the excerpt that `choose` takes."""
    excerpt = choose(tables)
    height = 1.2 + 0.25 * _lines(excerpt)
    return Drawing("Token heat map", excerpt.caption, lambda panels: draw(panels[0], excerpt), height=height)


def draw(axes: Any, excerpt: Excerpt) -> None:
    """The excerpt on matplotlib `axes`, flowing in lines of `COLUMNS` characters, the roles' marks beneath the cells,
    and what marks and shades mean around it. The y axis counts lines downwards."""
    from matplotlib.patches import Rectangle

    about = zip(excerpt.tokens, excerpt.roles, excerpt.shade, _flow(excerpt.tokens), strict=True)
    for token, role, shade, (x, width, line) in about:
        centre = x + width / 2
        axes.add_patch(Rectangle((x + 0.1, line), width - 0.2, 0.62, facecolor=colour_of(shade), linewidth=0))
        axes.text(
            centre, line + 0.32, token, color=ink_on(shade), ha="center", va="center",
            family="monospace", fontsize=6, parse_math=False,
        )  # fmt: skip
        if role in ROLE_MARKS:
            axes.plot(centre, line + 0.79, **_marker(role))
    axes.set(xlim=(0, COLUMNS), ylim=(_lines(excerpt) + 0.1, -0.1))
    axes.set_axis_off()
    _legend(axes, excerpt)


def _legend(axes: Any, excerpt: Excerpt) -> None:
    """The roles that occur above the excerpt, the scale of norms beneath it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=role, **_marker(role)) for role in ROLE_MARKS if role in excerpt.roles]
    if handles:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handletextpad=0.2)
    shades = ListedColormap([colour_of(shade) for shade in np.linspace(0, 1, 64)])
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(*excerpt.range), shades), ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02,
        label=f"norm after layer {excerpt.layer} of 0…{excerpt.n_layers - 1}",
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)


def _lines(excerpt: Excerpt) -> int:
    return _flow(excerpt.tokens)[-1][-1] + 1


def _flow(tokens: list[str]) -> list[tuple[float, float, int]]:
    """Left edge, width (in characters) and line of each token's cell: a new line where the next would not fit."""
    places, x, line = [], 0.0, 0
    for token in tokens:
        width = max(len(token), 2) + 1.0
        if x > 0 and x + width > COLUMNS:
            x, line = 0.0, line + 1
        places.append((x, width, line))
        x += width
    return places


def colour_of(shade: float) -> str:
    """The colour of a cell, from 0 (light) to 1 (dark)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["Blues"](0.04 + 0.88 * shade))  # light to dark in print as well


def shade_of(share: float) -> int:
    """Which of the `SHADES`, from 0 (light), stands for a share of 0…1."""
    return round(min(max(share, 0.0), 1.0) * (SHADES - 1))


def _sign(role: str | None) -> str:
    return ROLE_MARKS[role][1] if role in ROLE_MARKS else ""


def ink_on(shade: float) -> str:
    """The colour of text that is legible on `colour_of(shade)`."""
    return "#ffffff" if shade > 0.75 else "#000000"


def _marker(role: str) -> dict[str, Any]:
    marker, _, filled = ROLE_MARKS[role]
    face = "black" if filled else "white"
    look = {"marker": marker, "color": "black", "markerfacecolor": face, "linestyle": "none"}
    return look | {"markersize": 3.2, "markeredgewidth": 0.7}
