"""The colours of every palette stay apart for readers without green or red cones, and PDFs hold their fonts."""

import itertools
import re
import zlib

import numpy as np
import pytest

from normprobe import style
from normprobe.claims.domain_and_difficulty import DOMAIN_COLOURS
from normprobe.claims.marks_critical_steps import ROLE_COLOURS
from normprobe.report.figures import FIGURES

PALETTES = {
    "modes": [line["color"] for line in style.MODE_LINES.values()],
    "readers": [line["color"] for line in style.READER_LINES.values()],
    "verdicts": [*style.VERDICT_COLOURS.values()],
    "domains": [*DOMAIN_COLOURS, style.GREY],
    "roles": [*ROLE_COLOURS.values(), style.BLUE, style.VERMILION, style.GREY],
    "selectors": [style.BLUE, style.GREEN, style.VERMILION, style.GREY],
}
# Machado, Oliveira, Fernandes (2009), doi 10.1109/TVCG.2009.113, severity 1: of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
APART = 10.0
"""Distance in CIELAB (CIE 1976): more than four just noticeable ones (2.3; Mahy et al., 1994)."""


def linear(colour: str) -> np.ndarray:
    """sRGB as linear light (IEC 61966-2-1)."""
    encoded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB under D65."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    relative = np.array(to_xyz) @ np.clip(light, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours: list[str], vision: str) -> float:
    seen = [lab(VISION[vision] @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_stay_apart(palette, vision):
    assert closest(PALETTES[palette], vision) >= APART


def test_the_simulation_takes_red_and_green_together_and_leaves_grey_alone():
    red, green = "#B24A00", "#6E7A00"
    assert closest([red, green], "deuteranopia") < closest([red, green], "normal") / 2
    for vision in VISION.values():
        assert vision @ linear("#808080") == pytest.approx(linear("#808080"), abs=1e-5)


@pytest.mark.parametrize("stem", ["fig_02_norm_by_layer", "fig_06_token_heat_map", "fig_20_methods"])
def test_a_pdf_holds_its_fonts_as_truetype(whole_run, tmp_path, stem):
    FIGURES[stem](whole_run).save(tmp_path / stem)
    content = (tmp_path / f"{stem}.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    fonts = re.findall(rb"/FontDescriptor \d+ 0 R", content)
    files = re.findall(rb"/FontFile2 (\d+) 0 R", content)
    assert fonts
    assert len(files) == len(re.findall(rb"/Type /FontDescriptor", content)) >= 1
    assert b"/Subtype /Type3" not in content
    # The tables of a TrueType font begin with its version.
    assert sum(_inflated(stream)[:4] == b"\x00\x01\x00\x00" for stream in streams) == len(files)


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return stream
