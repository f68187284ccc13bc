"""Norm and late spike by domain, above the amplification by difficulty (arXiv 2606.06188, across benchmarks)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from normprobe.claims.domain_and_difficulty import DOMAIN_COLOURS, DomainProblems
from normprobe.claims.measure.drawing import curve, layer_axis, logarithmic
from normprobe.claims.measure.measured_tokens import late_layers, middle_layers
from normprobe.claims.measure.resampling import Resampling, average, row
from normprobe.report.figure import Drawing
from normprobe.report.findings import Finding
from normprobe.runs.tables import Tables
from normprobe.style import GREY

NORMS, SPIKE = "norm in think", "late spike"
CAPTION = (
    "(a) Mean norm over whole responses in think by layer, on a logarithmic axis, of the problems of each domain. "
    "(b) Late spike of each domain: log(mean norm in think / no_think), mean over the last quarter of layers less that "
    "over the middle ones; right of 0 thinking raises the norm more in late layers. Bands and lines: 95 % intervals. "
    "(c) {of_claim}"
)


def by_domain(tables: Tables, seed: int) -> pd.DataFrame:
    """Tidy rows (quantity, name, layer, estimate, low, high): per domain `NORMS` by layer, and `SPIKE` at layer −1,
    with 95 % intervals over the domain's problems. Raises NotMeasurable as `DomainProblems`.
    """
    problems, norm = DomainProblems(tables), tables.signals("model")["norm"]
    measured = problems.measured
    think = measured.means(norm, measured.where("think"))[problems.kept]
    no_think = measured.means(norm, measured.where("no_think"))[problems.kept]
    ratio, depth = np.log(think / no_think), len(norm)
    late, middle = (of(range(depth), depth) for of in (late_layers, middle_layers))
    spike = ratio[:, late].mean(axis=1) - ratio[:, middle].mean(axis=1)
    resample = Resampling(np.random.default_rng(seed))
    frames = []
    for number, domain in enumerate(problems.domains):
        own = problems.domain == number
        weights = resample(int(own.sum()))
        frames.append(row(NORMS, str(domain), average(weights, think[own]), range(depth)))
        frames.append(row(SPIKE, str(domain), average(weights, spike[own, None])[:, 0]))
    return pd.concat(frames, ignore_index=True)


def drawing(tables: Tables, finding: Finding) -> Drawing:
    """The figure of the claim `domain_and_difficulty` with the two panels of `by_domain` above its own."""
    series = by_domain(tables, finding.evidence.seed)

    def draw(panels: list[Any]) -> None:
        norms, spikes, of_claim = panels
        layer_axis(norms, series, finding.evidence)
        spikes.axvline(0.0, color=GREY, linewidth=0.6)
        domains = list(dict.fromkeys(series["name"]))
        for number, domain in enumerate(domains):
            look = {"color": DOMAIN_COLOURS[number % len(DOMAIN_COLOURS)], "marker": "osD^vP"[number % 6]}
            own = series[series["name"] == domain]
            curve(norms, own[own["quantity"] == NORMS], domain, **look)
            spike = own[own["quantity"] == SPIKE]
            spikes.hlines(-number, spike["low"], spike["high"], color=look["color"], linewidth=1.2)
            spikes.plot(spike["estimate"], [-number], **look)
        logarithmic(norms)
        norms.set_ylabel("mean ‖h‖₂ in think\n(activation units)")
        spikes.set_yticks([-number for number in range(len(domains))], domains)
        spikes.set_ylim(0.6 - len(domains), 0.4)
        spikes.set_xlabel("late spike of log(norm in think / no_think)")
        finding.claim.panel(of_claim, finding.series(), finding.evidence)

    return Drawing(finding.claim.title, CAPTION.format(of_claim=finding.caption), draw, panels=3, height=2.3)
