"""Tokens shaded in a terminal: the text stays what it is, darker is higher, and no text steers the terminal."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from normprobe.report.shaded_text import BLUES, printable, shaded

CODES = re.compile(r"\x1b\[(?:38;5;\d+;48;5;\d+|0)m")
PIECES = st.lists(st.text(max_size=4), min_size=1, max_size=12)


@given(PIECES, st.integers(0, 2**32 - 1))
def test_without_its_colours_it_is_the_text_and_only_colours_steer(pieces, seed):
    norm = np.random.default_rng(seed).gamma(2.0, size=len(pieces)).astype(np.float32)
    plain = CODES.sub("", shaded(pieces, norm, 3, 12))
    assert "\x1b" not in plain
    assert plain.rpartition("\n")[0] == printable("".join(pieces))


def test_a_higher_norm_is_never_lighter_and_both_ends_of_the_scale_are_used():
    norm = np.geomspace(1, 90, 50)
    line = shaded(["x"] * 50, norm, 0, 2).split("\n")[0]
    steps = [BLUES.index(int(colour)) for colour in re.findall(r"48;5;(\d+)m", line)]
    assert steps == sorted(steps)
    assert {0, len(BLUES) - 1} <= set(steps)
