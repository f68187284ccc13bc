import pytest

from normprobe.stats.verdict import decide


@pytest.mark.parametrize(
    "interval, verdict",
    [
        ((0.11, 0.5), "supported"),
        ((0.1, 0.5), "inconclusive"),
        ((-0.5, 0.09), "not supported"),
        ((0.0, 0.2), "inconclusive"),
        ((float("nan"), 0.5), "inconclusive"),
        ((0.2, float("inf")), "inconclusive"),
    ],
)
def test_the_rule(interval: tuple[float, float], verdict: str) -> None:
    assert decide(interval, 0.1) == verdict
