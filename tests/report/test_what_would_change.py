"""What would change a verdict: the stated numbers are the ones that change it, and every verdict has its words."""

import re

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from normprobe.claims.evidence import Decision, Evidence
from normprobe.report.what_would_change import (
    binding,
    draw_margins,
    problems_needed,
    what_would_change,
)
from normprobe.stats.verdict import decide

NAN = float("nan")


def evidence(
    verdict: str,
    margin: float = 0.05,
    interval: tuple[float, float] = (-0.05, 0.15),
    *,
    form: str = "plain",
    strongest: str = "untrained twin",
    missing: tuple[tuple[str, str], ...] = (),
    reason: str = "",
) -> Evidence:
    decision = Decision(margin, interval, 0.1, form, strongest, missing, 0.5)
    return Evidence(
        claim="late_spike", version=1, statement="s", verdict=verdict, reason=reason, rule="r", form="", estimate=0.5,
        unit="u", interval=(0.4, 0.6), n=1000, n_unit="problems", controls=(), decision=decision, seed=0, note="",
    )  # fmt: skip


half_widths = st.floats(1e-3, 2.0)


@example(-1e-05, 1.0, 1.001, 0.01, 10)  # 100,000 problems but for rounding
@given(st.floats(-2, 2), half_widths, half_widths, st.floats(0.01, 1), st.integers(10, 10_000))
def test_the_stated_number_of_problems_settles_an_open_margin(margin, below, above, smallest, n):
    interval = (margin - below, margin + above)
    assume(decide(interval, smallest) == "inconclusive")
    assume(abs(margin - smallest) > 1e-4)
    needed = problems_needed(Decision(margin, interval, smallest, "", "twin", (), 0.5), n)
    assert needed is not None

    def verdict(problems: int) -> str:
        shrunk = np.sqrt(n / problems)
        return decide((margin - below * shrunk, margin + above * shrunk), smallest)

    assert needed >= n
    assert verdict(needed) == ("supported" if margin > smallest else "not supported")
    assert verdict(max(1, int(needed * 0.99) - 1)) == "inconclusive"


@pytest.mark.parametrize(
    ("margin", "interval"),
    [(0.1, (0.0, 0.2)), (NAN, (NAN, NAN)), (0.2, (NAN, NAN)), (0.2, (-float("inf"), 0.3))],
)
def test_a_margin_on_its_threshold_or_without_an_interval_is_settled_by_no_number(margin, interval):
    decision = Decision(margin, interval, 0.1, "", "twin", (), 0.5)
    assert problems_needed(decision, 100) is None
    assert "No number of problems" in what_would_change(evidence("inconclusive", margin, interval))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_a_supported_claim_says_how_much_stronger_its_binding_control_would_have_to_be():
    """Raised by that much, the control pulls the interval down to the smallest effect."""
    text = what_would_change(evidence("supported", 0.5, (0.375, 0.7)))
    assert text == "Untrained twin (plain) would have to be stronger by more than 0.275."
    (room,) = numbers(text)
    assert decide((0.375 - room - 1e-9, 0.7 - room), 0.1) == "inconclusive"
    assert decide((0.375 - room + 1e-9, 0.7 - room), 0.1) == "supported"
    free = what_would_change(evidence("supported", 0.5, (0.375, 0.7), strongest="no effect"))
    assert (
        free == "No control reaches the value of no effect; one would have to exceed it by more than 0.275."
    )


@pytest.mark.parametrize(
    ("margin", "interval", "now"), [(0.02, (-0.03, 0.06), "lies above"), (-0.4, (-0.45, -0.36), "lies below")]
)
def test_a_claim_that_is_not_supported_says_what_its_estimate_would_have_to_reach(margin, interval, now):
    """With the margin there, the same interval around it lies above the smallest effect."""
    text = what_would_change(evidence("not supported", margin, interval))
    asked, here = numbers(text)
    assert now in text
    assert here == pytest.approx(abs(margin))
    risen = asked - margin
    assert decide((interval[0] + risen + 1e-9, interval[1] + risen), 0.1) == "supported"
    assert decide((interval[0] + risen - 1e-9, interval[1] + risen), 0.1) == "inconclusive"


def test_an_open_claim_says_what_is_missing_or_how_many_problems_it_takes():
    nothing = (NAN, NAN)
    missing = (("plain", "untrained twin"), ("matched", "untrained twin"), ("matched", "the estimate"))
    text = what_would_change(evidence("inconclusive", NAN, nothing, strongest="", missing=missing))
    assert text == "What is missing has to be computed: untrained twin (in 2 forms), the estimate."
    # n (0.1055 / 0.05)² and n (0.1055 / 0.1)², rounded up
    text = what_would_change(evidence("inconclusive", 0.05, (-0.05, 0.1555)))
    assert (
        text == "If the margin stays, about 4,453 problems instead of 1,000 would settle it as not supported."
    )
    text = what_would_change(evidence("inconclusive", 0.2, (0.0945, 0.4)))
    assert text == "If the margin stays, about 1,114 problems instead of 1,000 would settle it as supported."


def test_where_the_margin_is_not_what_holds_a_verdict_the_reason_says_what_does():
    open_by_rule = what_would_change(evidence("inconclusive", 0.5, (0.4, 0.6), reason="Nothing was done."))
    assert open_by_rule.startswith("Not the margin")
    vacuous = what_would_change(evidence("vacuous", -0.8, (-0.8, -0.8), reason="Nothing was done."))
    for text in (open_by_rule, vacuous):
        assert text.endswith("Nothing was done.")


def test_the_binding_control_is_named_with_its_form():
    assert binding(evidence("supported").decision) == "untrained twin (plain)"
    assert (
        binding(evidence("supported", form="", strongest="random_matched").decision)
        == "random states moved as far"
    )
    assert binding(evidence("supported", strongest="no effect").decision) == "the value of no effect (plain)"
    assert binding(evidence("inconclusive", form="", strongest="").decision) == ""


def test_margins_are_drawn_in_smallest_effects_and_those_far_off_at_the_edge():
    from matplotlib.figure import Figure

    items = [
        evidence("supported", 0.5, (0.4, 0.7)),
        evidence("not supported", -4.0, (-5.0, -3.0)),
        evidence("inconclusive", NAN, (NAN, NAN), strongest="", missing=(("", "untrained twin"),)),
        evidence("vacuous", -0.8, (-0.8, -0.8)),
    ]
    figure = Figure()
    axes = figure.subplots()
    draw_margins(axes, items)
    figure.draw_without_rendering()
    points = [line.get_xydata()[0] for line in axes.lines if len(line.get_xydata()) == 1]
    np.testing.assert_allclose(points, [(5, 4), (-10, 3), (-8, 1)])
    assert [text.get_text() for text in axes.texts] == ["-40"]
    ends = [segment[:, 0].tolist() for lines in axes.collections for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [(4, 7), (-10, -10), (-8, -8)])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[2].endswith("a control is missing")
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in axes.lines[2:]}) == 4
