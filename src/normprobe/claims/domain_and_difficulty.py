"""Claim 9: thinking amplifies the norm more on harder problems, and its late spike separates domains (arXiv 2606.06188,
amplification by difficulty, spike by domain).

Both halves of `RULE` are a share of rank variance, so that one smallest effect serves both. Thoughts lengthen with
difficulty and differ in length by domain, and a mean over more and later tokens is another mean: hence the form that is
matched in number and place. (8 tokens, not as many as the shortest thought has: one empty thought would leave nothing
to measure. A response of fewer tokens counts whole.) Filler is as long as the thought by construction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.evidence import Evidence
from normprobe.claims.margin import Form
from normprobe.claims.measure.drawing import CONTROL, curve, legend_below, pick
from normprobe.claims.measure.measured_tokens import (
    FEWEST_PROBLEMS,
    MeasuredTokens,
    NotMeasurable,
    late_layers,
    middle_layers,
)
from normprobe.claims.measure.readers import (
    EARLY,
    FILLER,
    MODEL,
    READER_NAMES,
    TWIN,
    null_subjects,
    rules_out,
)
from normprobe.claims.measure.resampling import Draws, Resampling, as_text, average, row, tidy
from normprobe.runs.tables import Tables
from normprobe.stats.correlation import share_between_groups, spearman_within
from normprobe.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

SMALLEST_EFFECT = 0.05
FIRST = 8
RULE = (
    "Log ratio = log(mean norm think / no_think) of a problem, by layer. Difficulty: ρ·|ρ| of its mean over layers "
    "and the difficulty, Spearman's ρ within domains. Domain: share of the rank variance of its spike (mean over the "
    "last quarter of layers − mean over the middle ones) that the domain explains at equal difficulty, 0 by "
    f"chance. Each in two forms (whole responses; the first {FIRST} tokens of each). In all four, margin = share − the "
    "largest of 0, untrained twin, filler instead of a thought and (where the run has one) early checkpoint. Supported "
    f"if the 95 % interval of the smallest of the four margins lies above {SMALLEST_EFFECT}, not supported if below, "
    "else inconclusive; inconclusive if a form or a control cannot be computed."
)
DIFFICULTY, DOMAIN = "difficulty", "domain"
DIFFICULTY_FIRST, DOMAIN_FIRST = (f"{half}, first {FIRST} tokens" for half in (DIFFICULTY, DOMAIN))
AMPLIFICATION = "amplification"
ALL_DOMAINS = "all domains"
DOMAIN_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
_Ratio = Float[np.ndarray, "problem layer"]


class DomainProblems:
    """The measured problems whose domain and difficulty are known, and the log ratios of their norms.

    Raises NotMeasurable where they are too few, or all of one domain or of one difficulty.
    """

    def __init__(self, tables: Tables) -> None:
        self.measured = MeasuredTokens(tables, ["think", "no_think"])
        ids = self.measured.tokens.groupby(self.measured.problem)["problem_id"].first()
        about = tables.problems.set_index("problem_id").loc[ids, ["domain", "difficulty"]]
        about["difficulty"] = pd.to_numeric(about["difficulty"], errors="coerce")  # texts have no order
        self.kept = about.notna().all(axis=1).to_numpy()
        about = about[self.kept]
        self.n = len(about)
        self.domain, self.domains = pd.factorize(about["domain"], sort=True)
        self.difficulty = about["difficulty"].to_numpy(dtype=float)
        n_difficulties = len(np.unique(self.difficulty))
        if self.n < FEWEST_PROBLEMS or len(self.domains) < 2 or n_difficulties < 2:
            raise NotMeasurable(
                f"it needs at least {FEWEST_PROBLEMS} measured problems of known domain and difficulty, and two of "
                f"each; this run has {self.n} problems, {len(self.domains)} domains, {n_difficulties} difficulties"
            )
        offset = self.measured.tokens.groupby("response_id").cumcount()
        self.first = (offset < FIRST).to_numpy(dtype=bool)

    def log_ratio(self, subject: str, mode: str, among: Bool[np.ndarray, " token"]) -> _Ratio | None:
        """Of a mode to no_think, over these tokens of both; NaN for a problem that lacks some, None if all do."""
        high, low = self.measured.where(mode) & among, self.measured.where("no_think") & among
        if not self.measured.tables.has(f"signals/{subject}") or not high.any():
            return None
        norm = self.measured.tables.signals(subject)["norm"]
        return np.log(self.measured.means(norm, high) / self.measured.means(norm, low))[self.kept]

    def by_difficulty(self, ratio: _Ratio, weights: Float[np.ndarray, "draw problem"]) -> Draws:
        """ρ·|ρ| of amplification (mean log ratio over layers) and difficulty within domains."""
        known = np.isfinite(ratio).all(axis=1)
        amplification = ratio[known].mean(axis=1)
        rho = spearman_within(amplification, self.difficulty[known], self.domain[known], weights[:, known])
        return rho * np.abs(rho)

    def by_domain(self, ratio: _Ratio, weights: Float[np.ndarray, "draw problem"]) -> Draws:
        """Share of the spike's rank variance that the domain explains at equal difficulty."""
        known = np.isfinite(ratio).all(axis=1)
        depth = ratio.shape[1]
        late, middle = (of(range(depth), depth) for of in (late_layers, middle_layers))
        spike = ratio[known][:, late].mean(axis=1) - ratio[known][:, middle].mean(axis=1)
        _, stratum = np.unique(self.difficulty[known], return_inverse=True)
        return share_between_groups(spike, self.domain[known], stratum, weights[:, known])

    def curve(
        self,
        ratio: _Ratio,
        reader: str,
        domain: str,
        chosen: Bool[np.ndarray, " problem"],
        resample: Resampling,
    ) -> list[pd.DataFrame]:
        """Mean amplification at each difficulty of the chosen problems, resampled within that difficulty."""
        amplification = ratio.mean(axis=1)
        chosen = chosen & np.isfinite(amplification)
        frames = []
        for difficulty in np.unique(self.difficulty[chosen]):
            values = amplification[chosen & (self.difficulty == difficulty)]
            draws = average(resample(len(values)), values[:, None])[:, 0]
            frames.append(row(AMPLIFICATION, reader, draws).assign(domain=domain, difficulty=difficulty))
        return frames


def measure(tables: Tables, resample: Resampling) -> Measurement:
    """Measure the shares; the series hold them by form and reader, and the amplification of whole responses by domain
    and difficulty (columns `domain`, `difficulty`; controls over all domains). Raises NotMeasurable as
    `DomainProblems`.
    """
    problems = DomainProblems(tables)
    weights = resample(problems.n)
    readers = {
        **{READER_NAMES[subject]: (subject, "think") for subject in ("model", *null_subjects(tables))},
        FILLER: ("model", "filler"),
    }
    whole, first = (
        {reader: problems.log_ratio(*read, among) for reader, read in readers.items()}
        for among in (np.ones_like(problems.first), problems.first)
    )
    shares: dict[str, dict[str, Draws | None]] = {
        form: {reader: None if ratio is None else share(ratio, weights) for reader, ratio in ratios.items()}
        for form, share, ratios in (
            (DIFFICULTY, problems.by_difficulty, whole),
            (DIFFICULTY_FIRST, problems.by_difficulty, first),
            (DOMAIN, problems.by_domain, whole),
            (DOMAIN_FIRST, problems.by_domain, first),
        )
    }
    frames = [frame.assign(domain=ALL_DOMAINS, difficulty=np.nan) for frame in tidy(shares)]
    curves = [(MODEL, str(domain), problems.domain == i) for i, domain in enumerate(problems.domains)]
    curves += [(reader, ALL_DOMAINS, np.ones(problems.n, dtype=bool)) for reader in (TWIN, FILLER)]
    for reader, domain, chosen in curves:
        if (ratio := whole[reader]) is not None:
            frames += problems.curve(ratio, reader, domain, chosen, resample)
    return Measurement(
        form=DIFFICULTY,
        forms={form: Form.of(named) for form, named in shares.items()},
        n=problems.n,
        note=_note(shares),
        series=pd.concat(frames, ignore_index=True),
    )


def _note(shares: dict[str, dict[str, Draws | None]]) -> str:
    of = {(form, reader): as_text(draws) for form, named in shares.items() for reader, draws in named.items()}
    return (
        f"Within domains difficulty explains {of[DIFFICULTY, MODEL]} of the rank variance of a problem's amplification "
        "(negative: thinking amplifies the norm less on harder problems). An untrained network gives "
        f"{of[DIFFICULTY, TWIN]}, filler instead of a thought {of[DIFFICULTY, FILLER]}, the first {FIRST} tokens "
        f"of each response {of[DIFFICULTY_FIRST, MODEL]}. At equal difficulty the domain explains "
        f"{of[DOMAIN, MODEL]} of the rank variance of the spike; an untrained network, which reads other words in each "
        f"domain too, gives {of[DOMAIN, TWIN]}, filler {of[DOMAIN, FILLER]}, the first {FIRST} tokens "
        f"{of[DOMAIN_FIRST, MODEL]}."
    )


def panel(axes: Any, series: pd.DataFrame, evidence: Evidence) -> None:
    """How many times higher the norm is in think, by difficulty: a curve per domain, the controls grey; 1 is dotted."""
    along = "difficulty"
    shown = series.assign(**{name: np.exp(series[name]) for name in ("estimate", "low", "high")})
    axes.axhline(1.0, color="black", linestyle=":", linewidth=0.8)

    for reader, style in ((TWIN, "--"), (FILLER, ":")):
        curve(axes, pick(shown, AMPLIFICATION, reader, along), reader, along, linestyle=style, **CONTROL)
    ours = pick(shown, AMPLIFICATION, MODEL, along)
    for number, (domain, rows) in enumerate(ours.groupby("domain")):
        colour = DOMAIN_COLOURS[number % len(DOMAIN_COLOURS)]
        curve(axes, rows, str(domain), along, color=colour, marker="osD^vP"[number % 6])
    axes.set_xlabel(f"difficulty (95 % intervals, n = {evidence.n} {evidence.n_unit})")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("norm in think / no_think")
    legend_below(axes)


CLAIM = Claim(
    order=9,
    name="domain_and_difficulty",
    title="Is the norm amplified more on harder problems, and does it separate domains?",
    statement=(
        "Thinking amplifies the norm more on harder problems, and its spike in late layers separates the domains."
    ),
    caption=(
        "Mean norm over whole responses in think, as a multiple of that in no_think (mean over layers), by difficulty "
        "and domain of the problem; at 1 (dotted) thinking changes nothing. Grey: the untrained twin; filler of the "
        "thought's length instead of a thought, over all domains. Bands: 95 % intervals."
    ),
    rule=RULE,
    needs=frozenset({"tokens", "problems", "signals/model"}),
    unit="share of the amplification's rank variance that difficulty explains, with its sign",
    measured="the share of what thinking adds to the norm that a problem's difficulty, or its domain, explains",
    smallest_effect=SMALLEST_EFFECT,
    why_smallest=(
        "A twentieth of the variance: two domains of equal size would lie half a standard deviation apart. With "
        "less, most of two domains' problems overlap and a problem's amplification says next to nothing about its "
        "difficulty (|ρ| < 0.22)."
    ),
    rules_out=rules_out(TWIN, FILLER, EARLY),
    measure=measure,
    panel=panel,
    figure="fig_09_domain_and_difficulty",
    planted="learning",
)
