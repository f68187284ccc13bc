"""Every caption says how much it rests on, and that its intervals are of 95 %; an illustration says that it is one."""

import re

import pytest

from normprobe.report.figures import FIGURES
from normprobe.report.findings import NothingToDraw
from normprobe.report.side_by_side import drawing

ILLUSTRATIONS = {"fig_06_token_heat_map", "fig_20_methods"}
N = re.compile(r"n = [\d,]+( to [\d,]+)?( or [\d,]+)* ([a-z-]+ )?(problems|tokens|null networks)")


@pytest.mark.parametrize("stem", FIGURES)
def test_a_caption_says_n_and_what_its_intervals_are(whole_run, stem):
    caption = FIGURES[stem](whole_run).caption
    assert "\n" not in caption
    if stem in ILLUSTRATIONS:
        assert "llustration" in caption
        assert "no data" in caption or N.search(caption)
    else:
        assert N.search(caption), caption
        assert re.search(r"95 %( Wilson)? interval", caption), caption


def test_the_captions_of_several_runs_say_it_of_each(whole_run, bare_run):
    runs = {"whole": whole_run, "bare": bare_run}
    compared = 0
    for stem in FIGURES:
        try:
            caption = drawing(stem, runs).caption
        except NothingToDraw:
            continue
        compared += 1
        for name in runs:
            assert re.search(rf"\([a-z]\) {name}: [^:]*: .*?95 % interval.*?{N.pattern}", caption), caption
    assert compared >= 5
