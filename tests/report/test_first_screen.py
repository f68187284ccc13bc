"""The first screen of report.html in a real browser: wide, on a phone and in print, all claims and their axis."""

import pytest

WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_axis_says_where_the_control_and_what_was_asked_lie(report, visit, size, media):
    page, _ = visit(report, viewport=size)
    page.emulate_media(media=media)
    axis = page.locator(".forest .axis").bounding_box()
    control, asked = (
        page.locator(".axis").get_by_text(word, exact=True).bounding_box() for word in ("control", "asked")
    )
    assert axis["x"] <= control["x"]
    assert control["x"] + control["width"] <= asked["x"]
    assert asked["x"] + asked["width"] <= axis["x"] + axis["width"] <= size["width"]
