"""Claim 8: models trained by RL spike sharply in late layers, models trained by SFT gradually (arXiv 2606.06188).

Two runs are compared problem by problem: this one, of a model trained by reinforcement learning, and one of a model
trained by supervised fine-tuning from the same base on the same problems. Each is read with its own dictionaries and
reasoning features, so only numbers that need no common scale compare: the rise of `late_spike`, and the late share of
a curve, the rise over the last quarter of layers as a share of the curve's whole movement up and down. A quarter of an
even rise is late, all of a spike. Late shares are taken of three curves: ΣΔz per unit norm; log(mean norm in think /
no_think); log(mean norm in think / the base's on the same tokens), which takes out what all its layers had before
either training. The norms' curves end before the last block, whose norm never reaches the logits.

The share of the largest steps, wherever they are, would say "sharp" too. But it is high for noise, the more so the
fewer the problems, and for a spike in the middle. A curve that moves by less than the smallest effects of `late_spike`
and `thinking_norm_is_higher` has next to no late share, since it hardly moves.

Lead = the RL-trained model's number − the larger of 0 and the SFT-trained one's: a fall that is less sharp than another
is no spike.

The two write different texts. So the same lead is computed of two networks that both trainings left alone, the common
base and the untrained twin, reading the responses of both runs: what they show, the texts make. And one training is one
draw: where a run of a second seed is given, RL must lead by more than two seeds of one paradigm lie apart. A model that
is right more often may spike more for that reason; therefore accuracy is matched, by means of 3 points or less apart,
or else problem by problem. That leaves out the problems that one model solves alone. To keep what both solve only would
leave out as much again, and show each model on what is easy for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims import late_spike, thinking_norm_is_higher
from normprobe.claims.claim import Claim, ExtraFigure, Measurement, Override
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form, control
from normprobe.claims.measure.contrast import ByLayer
from normprobe.claims.measure.drawing import CONTROL, curve, layer_axis, legend_below, pick
from normprobe.claims.measure.matched_accuracy import MatchedProblems, matched_problems
from normprobe.claims.measure.measured_tokens import NotMeasurable, late_layers, require
from normprobe.claims.measure.readers import TWIN
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, tidy
from normprobe.claims.measure.sharpness import ReadRun, late_share
from normprobe.runs.tables import Tables
from normprobe.stats.verdict import INCONCLUSIVE
from normprobe.style import BLUE, GREY, VERMILION

SMALLEST_EFFECT = 0.1
RULE = (
    "Compared are the measured problems that both models answered: all, if the accuracies in think lie 3 points or "
    "less apart; else those that both answer right or both wrong, if they are more than half. In each of four forms "
    "(rise of ΣΔz as in late_spike; late share of the movement of ΣΔz per unit norm, of log(norm in think / no_think) "
    "and of log(norm in think / the base's), the norms' without the last block) lead = RL − the larger of 0 and SFT, "
    "and margin = lead − the largest of 0, the same lead of the common base (but for the last form) and of the "
    "untrained twin, each reading both runs' responses, and (where further runs are given) the distance of two seeds "
    "of RL and of SFT. Supported if the 95 % interval of the smallest of the four margins lies above "
    f"{SMALLEST_EFFECT}, not supported if below, else inconclusive; inconclusive if accuracy cannot be matched, or if "
    "a form or a control cannot be computed."
)
RL, SFT, RL_AGAIN, SFT_AGAIN = "RL", "SFT", "RL again", "SFT again"
RESPONSE, ANSWER = "response", "answer"
RISE, SPIKE = "rise of the spike", "late share of the spike"
AMPLIFICATION, GROWTH = "late share of the norm's rise", "late share of the norm's growth since the base"
LEAD, BASE, RL_SEEDS, SFT_SEEDS = "RL beyond SFT", "common base", "two seeds of RL", "two seeds of SFT"
WITH_LAST, ANSWERS = "with the last block", "identical answer tokens"
SEEDS = {RL_SEEDS: (RL, RL_AGAIN), SFT_SEEDS: (SFT, SFT_AGAIN)}
_Key = tuple[str, str, str]
"""Paradigm, subject, scope."""
Numbers = Mapping[str, Draws | None]
"""By form."""


def _curves(network: ReadRun, base: ReadRun) -> dict[str, ByLayer | None]:
    """By form the curve whose late share it is; the base over itself is none."""
    growth = None if network is base else network.growth(base)
    return {SPIKE: network.spike, AMPLIFICATION: network.amplification, GROWTH: growth}


def _numbers(network: ReadRun, base: ReadRun, *, with_last: bool = False) -> dict[str, Draws | None]:
    """By form how sharp it is."""
    features, depth = network.features, network.depth - (not with_last)
    late = late_layers(range(depth), network.depth)
    by_form = _curves(network, base)
    spike = by_form.pop(SPIKE)
    return {
        RISE: features and features.rise(network.late, network.middle),
        SPIKE: None if spike is None else late_share(spike, network.late, late_spike.SMALLEST_EFFECT),
    } | {
        form: None if of is None else late_share(of[:, :depth], late, thinking_norm_is_higher.SMALLEST_EFFECT)
        for form, of in by_form.items()
    }


def _lead(rl: Numbers, sft: Numbers) -> dict[str, Draws | None]:
    """By form RL − the larger of 0 and SFT."""
    return {
        form: None if ours is None or (theirs := sft[form]) is None else ours - np.maximum(theirs, 0.0)
        for form, ours in rl.items()
    }


def _distance(one: Numbers, other: Numbers) -> dict[str, Draws | None]:
    """By form how far two networks lie apart."""
    return {
        form: None if ours is None or (theirs := other[form]) is None else np.abs(ours - theirs)
        for form, ours in one.items()
    }


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the lead; the series hold each form's curve by layer, for every paradigm and the base.

    Raises NotMeasurable for too few problems, too few layers, or dictionaries that leave out the middle or the last
    quarter of them.
    """
    rows: dict[_Key, pd.DataFrame] = {
        (str(name), str(subject), str(scope)): part
        for (name, subject, scope), part in tables.paradigm.groupby(["paradigm", "subject", "scope"])
    }
    answered = {name: rows[name, "model", RESPONSE].drop_duplicates("problem_id") for name in (RL, SFT)}
    right = {name: of.set_index("problem_id")["correct"].astype(float) for name, of in answered.items()}
    both = pd.concat(right, axis=1, join="inner")
    require(len(both), "measured problems that both models answered")
    matched = matched_problems(both)
    weights = resample(len(matched.problems))
    networks = {key: ReadRun(part, matched.problems, weights) for key, part in rows.items()}
    depth = networks[RL, "model", RESPONSE].depth
    if not late_layers(range(depth - 1), depth):
        raise NotMeasurable(f"it needs a model of five layers or more, and this one has {depth}")
    if not all(networks[name, "model", RESPONSE].features for name in (RL, SFT)):
        raise NotMeasurable("it needs dictionaries in the middle half and in the last quarter of layers")

    def numbers(paradigm: str, subject: str = "model", scope: str = RESPONSE, **options: bool) -> Numbers:
        return _numbers(networks[paradigm, subject, scope], networks[paradigm, "early", scope], **options)

    own = {
        name: numbers(name) for name in (RL, SFT, RL_AGAIN, SFT_AGAIN) if (name, "model", RESPONSE) in rows
    }
    lead = _lead(own[RL], own[SFT])
    controls = {
        BASE: _lead(numbers(RL, "early"), numbers(SFT, "early")),
        TWIN: _lead(numbers(RL, "untrained"), numbers(SFT, "untrained")),
        **{seeds: _distance(own[one], own[two]) for seeds, (one, two) in SEEDS.items() if two in own},
    }
    forms = {
        form: Form(
            draws,
            {name: of[form] for name, of in controls.items() if (form, name) != (GROWTH, BASE)},
            LEAD,
        )
        for form, draws in lead.items()
    }
    in_answers = _lead(numbers(RL, scope=ANSWER), numbers(SFT, scope=ANSWER))
    with_last = _lead(numbers(RL, with_last=True), numbers(SFT, with_last=True))
    return Measurement(
        form=RISE,
        forms=forms,
        n=len(matched.problems),
        note=_note(own, matched),
        series=_series(networks),
        further=[
            *(control(form, name, of[form], quantity="value") for form in forms for name, of in own.items()),
            *(control(f"{form}, {ANSWERS}", LEAD, draws) for form, draws in in_answers.items()),
            *(control(f"{form}, {WITH_LAST}", LEAD, with_last[form]) for form in (AMPLIFICATION, GROWTH)),
        ],
        overrides=[Override(INCONCLUSIVE, matched.lacking)] if matched.lacking else [],
        lacking=dict.fromkeys(
            (BASE, TWIN),
            "in one of the runs fewer of its features fire than the model has reasoning features",
        ),
    )


def _series(networks: Mapping[_Key, ReadRun]) -> pd.DataFrame:
    """The curves, each at the layers that it has."""
    frames = []
    for (paradigm, subject, scope), network in networks.items():
        if scope != RESPONSE or subject == "untrained":
            continue
        name = paradigm if subject == "model" else _reading(paradigm)
        for form, of in _curves(network, networks[paradigm, "early", scope]).items():
            layers = network.layers if form == SPIKE else range(network.depth)
            frames += tidy({form: {name: of}}, layers)
    return pd.concat(frames, ignore_index=True)


def _reading(paradigm: str) -> str:
    return f"{BASE}, reading what {paradigm} wrote"


def _note(own: Mapping[str, Numbers], matched: MatchedProblems) -> str:
    def both(form: str) -> str:
        return f"{as_text(own[RL][form])} after RL and {as_text(own[SFT][form])} after SFT"

    one_seed = (
        ""
        if RL_AGAIN in own and SFT_AGAIN in own
        else " Without a second seed of each it is about these two models, not about how models are trained."
    )
    return (
        f"On {matched.how} the spike's rise is {both(RISE)}. In the last quarter of layers comes, as a share of the "
        f"curve's whole movement, of the spike {both(SPIKE)}, of log(norm in think / no_think) {both(AMPLIFICATION)}, "
        f"of log(norm in think / the base's) {both(GROWTH)}.{one_seed}"
    )


LINES = {
    RL: {"color": BLUE, "marker": "o"},
    SFT: {"color": VERMILION, "marker": "s", "linestyle": "--"},
    RL_AGAIN: {"color": BLUE, "linewidth": 0.7},
    SFT_AGAIN: {"color": VERMILION, "linewidth": 0.7, "linestyle": "--"},
    _reading(RL): CONTROL,
    _reading(SFT): {"linestyle": ":", **CONTROL},
}


def _draw(axes: Any, series: pd.DataFrame, evidence: Evidence, *, form: str, label: str) -> None:
    """One curve of each paradigm by layer, the common base in grey."""
    layer_axis(axes, series, evidence)
    if form != GROWTH:  # which says nothing by its level
        axes.axhline(0.0, color=GREY, linewidth=0.6)
    for name, line in LINES.items():
        curve(axes, pick(series, form, name), name, **line)
    axes.set_ylabel(label)
    legend_below(axes)


CLAIM = Claim(
    order=11,
    name="paradigm",
    version=1,
    title="Is the late spike sharper after RL than after SFT?",
    statement="From one base, training by RL makes a sharp spike in late layers, training by SFT a gradual rise.",
    caption=(
        "Summed activation of the reasoning features by layer, think minus no_think, per unit norm and as a share of "
        "the features' gross activation, after RL and after SFT from one base. Grey: the base, reading what each of "
        "the two wrote. Thin: second seeds, where given. Bands: 95 % intervals. Shaded: the last quarter of the layers."
    ),
    rule=RULE,
    needs=frozenset({"paradigm"}),
    modes=frozenset({"think", "no_think"}),
    unit="lead of RL over SFT, share",
    measured="how much more of the rise comes late after RL than after SFT",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "A tenth is the smallest rise that late_spike takes for one; of a late share it is a tenth of all movement, "
        "which an eye on the paper's figure would hardly find."
    ),
    rules_out={
        BASE: "what the texts make: the base of both, reading what each of the two wrote",
        TWIN: "what the texts make of any network: a fresh one, reading what each of the two wrote",
        RL_SEEDS: "chance in training: as large a distance between two seeds of RL (where given)",
        SFT_SEEDS: "chance in training: as large a distance between two seeds of SFT (where given)",
    },
    measure=measure,
    panel=partial(_draw, form=SPIKE, label="ΣΔz per unit norm,\nshare of gross activation"),
    figure="fig_21_sharp_versus_gradual",
    extra_figures=(
        ExtraFigure(
            "fig_22_norm_sharp_versus_gradual",
            "log(mean norm in think / no_think) by layer, after RL and after SFT from one base. Grey: the base, "
            "reading what each of the two wrote. Bands: 95 % intervals. Shaded: the last quarter of the layers.",
            partial(_draw, form=AMPLIFICATION, label="log(mean norm in think / no_think)"),
        ),
        ExtraFigure(
            "fig_23_norm_since_the_base",
            "log(mean norm in think / the common base's on the same tokens) by layer, after RL and after SFT. Bands: "
            "95 % intervals. Shaded: the last quarter of the layers.",
            partial(_draw, form=GROWTH, label="log(mean norm in think / the base's)"),
        ),
    ),
)
