"""The first screen of report.html in a real browser, wide, on a phone, on paper: conditions, all claims, their axis."""

import pytest

from normprobe.report.findings import Findings
from normprobe.report.plain_sentence import plain_sentence

WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PAPER = {"width": 688, "height": 1017}
"""A4 within the margins of the page's style."""


@pytest.mark.parametrize(("media", "size"), [("screen", WIDE), ("screen", PHONE), ("print", PAPER)])
def test_the_axis_says_where_the_control_and_what_was_asked_lie(report, visit, media, size):
    page, _ = visit(report, viewport=size)
    page.emulate_media(media=media)
    axis = page.locator(".forest .axis").bounding_box()
    control, asked = (
        page.locator(".axis").get_by_text(word, exact=True).bounding_box() for word in ("control", "asked")
    )
    assert axis["x"] <= control["x"]
    assert control["x"] + control["width"] <= asked["x"]
    assert asked["x"] + asked["width"] <= axis["x"] + axis["width"] <= size["width"]


def test_a_wide_screen_holds_the_conditions_and_a_sentence_on_every_claim(report, visit):
    page, _ = visit(report, viewport=WIDE)
    findings = list(Findings(report.parent))
    rows = page.locator(".forest tbody tr")
    assert rows.locator(".found").all_inner_texts() == [plain_sentence(f.claim, f.evidence) for f in findings]
    verdicts = rows.locator(".judged").all_inner_texts()
    assert all(f.evidence.verdict in shown for f, shown in zip(findings, verdicts, strict=True))
    assert "right: think 98%, no_think 28%" in page.locator("#conditions summary").inner_text()
    for shown in (page.locator("#conditions summary"), *rows.all()):
        box = shown.bounding_box()
        assert 0 <= box["y"] < box["y"] + box["height"] <= WIDE["height"]


def test_a_phone_holds_the_conditions_and_the_first_marks(report, visit):
    page, _ = visit(report, viewport=PHONE)
    box = page.locator(".forest .point").nth(1).bounding_box()
    assert box["y"] + box["height"] <= PHONE["height"]
    assert 0 <= box["x"] < box["x"] + box["width"] <= PHONE["width"]
    assert page.locator("#conditions summary").bounding_box()["y"] < box["y"]
    # Down the plot its axis stays.
    page.locator(".forest tbody tr").last.scroll_into_view_if_needed()
    assert page.locator(".forest .axis").bounding_box()["y"] >= 0
