"""Text in a terminal, each token on a background that is the darker the higher its norm, with a line that says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

BLUES = (231, 195, 153, 117, 75, 33, 26, 19)
"""Colours of the ANSI table of 256, from light to dark."""
_DARK = 6
"""From this colour on the ink is white."""
_RESET = "\x1b[0m"
PERCENTILES = (2, 98)


def shaded(pieces: Sequence[str], norm: Float[np.ndarray, " token"], layer: int, n_layers: int) -> str:
    """The text of `pieces` with each piece shaded by its `norm`, which is of `layer`; below it the scale.

    The scale runs from the 2nd to the 98th percentile of these tokens.
    """
    low, high = np.percentile(norm, PERCENTILES) if len(norm) else (0.0, 0.0)
    share = np.clip((norm - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    steps = np.minimum((share * len(BLUES)).astype(int), len(BLUES) - 1)
    text = "".join(_on(step, printable(piece)) for piece, step in zip(pieces, steps.tolist(), strict=True))
    scale = "".join(_on(step, "  ") for step in range(len(BLUES)))
    legend = f"norm after layer {layer} of 0…{n_layers - 1}: {low:.3g} {scale} {high:.3g}"
    return f"{text}\n{legend} (2nd to 98th percentile of this response)"


def printable(text: str) -> str:
    """The text without what would steer a terminal: control characters other than line breaks and tabs become □."""
    return "".join(c if c.isprintable() or c in "\n\t" else "□" for c in text)


def _on(step: int, text: str) -> str:
    """The text on one of `BLUES`; line breaks stay plain, or the colour would run to the edge of the window."""
    ink = 231 if step >= _DARK else 16
    return "\n".join(
        f"\x1b[38;5;{ink};48;5;{BLUES[step]}m{line}{_RESET}" if line else "" for line in text.split("\n")
    )
