"""The bound for every held-out bound input (problem × layer), with constants fixed on other problems.

Each of ε, δ, ρ and κ is fixed per layer at the level that a new problem stays within with probability 95 %. c⋆ belongs
to the dictionary and to the choice of I, which saw none of these problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.claims.measure.bound_inputs import BoundInputs, read_bound_inputs
from normprobe.claims.measure.readers import of_layers
from normprobe.runs.tables import Tables
from normprobe.theory.bound import (
    PAPER,
    PAPER_MU,
    Bound,
    Constants,
    averaged_slack,
    coherence_constant,
    observable_slack,
    ordered_bound,
    signed_bound,
    slack,
    slack_free_bound,
)

COVERED = 0.95
SIGNED, PLUS, PAPERS = "signed", "I⁺", "paper's thresholds"
NORMS, SQUARES = "norms alone", "mean squared norms"
SILENT = "no active reasoning feature"


def fix(values: Float[np.ndarray, "problem layer"]) -> Float[np.ndarray, " layer"]:
    """The level per layer that a new problem exceeds with probability at most 5 %: the order statistic ⌈0.95 (n + 1)⌉
    of n exchangeable problems, or the largest where n < 19."""
    n = len(values)
    return np.sort(values, axis=0)[min(math.ceil(COVERED * (n + 1)), n) - 1]


def held_out_bounds(
    tables: Tables, reader: str, fixing: Sequence[str], held_out: Sequence[str]
) -> pd.DataFrame:
    """One row per form, held-out problem and layer of a reader.

    Forms: "signed" (I as chosen, any sign of Δ), "I⁺" (the theorem's Δ ≥ 0), "paper's thresholds" (signed, with the
    paper's constants and each input's own number of active features), "norms alone" (signed, with Ω_obs) and "mean
    squared norms" (signed, for the gap of mean ‖h‖² in place of that of the mean states: |V_T − V_N| is added to Ω).
    Columns: gap, s and the bound in (squared) activation units; holds; vacuous and why; whether √g ≤ S ≤ √(kg) holds.
    """
    layers = tables.layers(reader)
    sets = ("reasoning", "plus")
    fixed, fixed_plus = (_fixed(read_bound_inputs(tables, reader, fixing, name)) for name in sets)
    whole, plus = (read_bound_inputs(tables, reader, held_out, name) for name in sets)
    lengths, gap = whole.lengths, whole.lengths.gap
    # c⋆ of all of I bounds that of every subset from below, so it needs no look at which features are active.
    c, mu = of_layers(tables, reader, "c_star_selected"), of_layers(tables, reader, "mu_minus_selected")
    c = np.where(of_layers(tables, reader, "n_selected") > 0, c, 0.0)
    omega, omega_plus = slack(fixed, lengths), slack(fixed_plus, plus.lengths)
    omega_norms = observable_slack(fixed, lengths.h_think, lengths.h_no_think)
    omega_squares = averaged_slack(omega, whole.spread_think, whole.spread_no_think)
    gap_squares = gap + whole.spread_think - whole.spread_no_think
    c_paper = coherence_constant(whole.k_think, PAPER_MU)
    of_plus = ordered_bound(gap, omega_plus, fixed_plus.rho, c, mu)
    frames = [
        _rows(SIGNED, whole, gap, omega, fixed.rho, c),
        _rows(PLUS, plus, gap, omega_plus, fixed_plus.rho, c, of_plus),
        _rows(PAPERS, whole, gap, slack(PAPER, lengths), PAPER.rho, c_paper),
        _rows(NORMS, whole, gap, omega_norms, fixed.rho, c),
        _rows(SQUARES, whole, gap_squares, omega_squares, fixed.rho, c),
    ]
    keys = {
        "reader": reader,
        "problem_id": np.repeat(np.array(held_out), len(layers)),
        "layer": np.tile(layers, len(held_out)),
    }
    return pd.concat([frame.assign(**keys) for frame in frames], ignore_index=True)


def _fixed(inputs: BoundInputs) -> Constants:
    return Constants(*(fix(getattr(inputs.constants, field.name)) for field in fields(Constants)))


def _rows(
    form: str,
    inputs: BoundInputs,
    gap: np.ndarray,
    omega: np.ndarray,
    rho: np.ndarray,
    c: np.ndarray,
    bound: Bound | None = None,
) -> pd.DataFrame:
    """The rows of one form; bound: the signed one if not given."""
    bound = bound or signed_bound(gap, omega, rho, c)
    silent = inputs.k_think == 0
    reasons = {
        SILENT: silent,
        "leakage ρ ≥ 1": rho >= 1,
        "slack exceeds the gap, and c ≤ 0": bound.lower_vacuous & bound.upper_vacuous,
        "slack exceeds the gap": bound.lower_vacuous,
        "c ≤ 0: too many or too coherent atoms": bound.upper_vacuous,
    }
    columns = {
        "gap": gap,
        "s": inputs.s,
        "h_no_think_sq": inputs.lengths.h_no_think,
        "k": inputs.k_delta,
        "omega": omega,
        "rho": rho,
        "c": c,
        "lower": bound.lower,
        "upper": bound.upper,
        "holds": bound.holds(inputs.s),
        "vacuous": bound.vacuous | silent,
        "why_vacuous": np.select(np.broadcast_arrays(*reasons.values()), list(reasons), ""),
        "slack_free_holds": slack_free_bound(gap, inputs.k_delta).holds(inputs.s),
    }
    flat = {name: np.broadcast_to(values, silent.shape).ravel() for name, values in columns.items()}
    return pd.DataFrame(flat).assign(form=form)
