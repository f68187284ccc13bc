"""The forms of the norm's curve: each is sunk by the curve that lacks it, and none by the last block alone."""

from pathlib import Path

import numpy as np
import pytest
from claims_fixture import LAYERS, Effects, write_run
from safetensors.numpy import load_file, save_file

from normprobe.claims.evidence import Evidence
from normprobe.claims.measure.resampling import Resampling
from normprobe.claims.thinking_norm_is_higher import CLAIM, MOST, RISE, SHARE, WITH_LAST
from normprobe.runs.tables import Tables


def judge(path: Path, gap: list[float]) -> Evidence:
    """On a run in which the norm of think is e^gap times as high, layer by layer."""
    run = write_run(path / "run", Effects())
    tokens, signals = Tables(run).tokens, load_file(run / "traces" / "model.safetensors")
    factor = np.exp(np.outer(gap, tokens["mode"] == "think")).astype(np.float32)
    save_file(signals | {"norm": signals["norm"] * factor}, run / "traces" / "model.safetensors")
    return CLAIM.judge(Tables(run), Resampling(np.random.default_rng(0)), 0)[0]


def share(evidence: Evidence, form: str, name: str = "this model") -> float:
    (found,) = (c for c in evidence.controls if (c.form, c.name, c.quantity) == (form, name, SHARE))
    assert not found.decides
    return found.estimate


def test_higher_in_every_layer_and_most_so_late_is_supported(tmp_path):
    evidence = judge(tmp_path, [0.3] * 6 + [0.8] * 2)
    assert evidence.verdict == "supported"
    forms = {(c.form, c.name) for c in evidence.controls if c.decides} | {(evidence.form, "this model")}
    assert len(forms) == 18 * 4
    for tokens in ("whole responses", "identical answer tokens", "sinks excluded"):
        assert share(evidence, tokens) == share(evidence, f"{tokens}, {WITH_LAST}") == 1.0


@pytest.mark.parametrize(
    "gap, form",
    [
        ([0.5] * LAYERS, RISE),  # higher, but no more so late
        ([-0.3, 0.8, 0.8, 0.3, 0.3, 0.3, 1.5, 1.5], MOST),  # a mean hides where it is lower
        ([0.3] * 7 + [2.0], RISE),  # the last block alone rises
        ([-0.3] * 7 + [9.0], MOST),  # the last block alone makes the mean positive
        ([0.3] * 6 + [0.8, -2.0], WITH_LAST),  # all of it, but not with the last block
    ],
)
def test_a_curve_that_lacks_one_form_is_not_supported_and_the_form_is_named(gap, form, tmp_path):
    evidence = judge(tmp_path, gap)
    assert evidence.verdict == "not supported"
    assert form in evidence.decision.form


def test_the_estimate_leaves_the_last_block_out_and_the_share_is_of_layers(tmp_path):
    evidence, without = (
        judge(tmp_path / "a", [0.3] * 5 + [-0.3] * 2 + [9.0]),
        judge(tmp_path / "b", [0.0] * 8),
    )
    assert evidence.estimate - without.estimate == pytest.approx((5 * 0.3 - 2 * 0.3) / 7, abs=1e-4)
    with_last = (f"whole responses, {WITH_LAST}", "this model", "")
    (shown,) = (c for c in evidence.controls if (c.form, c.name, c.quantity) == with_last)
    assert shown.estimate - evidence.estimate > 1
    assert share(evidence, "whole responses") == pytest.approx(5 / 7)
    assert share(evidence, with_last[0]) == pytest.approx(6 / 8)
