"""The theorem as people read it: setup, assumptions, statement, and the parts of its proof, each step checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from normprobe.theory.certificates import Proof
from normprobe.theory.proof_bound import hull_proof, ordered_proof, signed_proof
from normprobe.theory.proof_slack import slack_proof

SETUP = """\
States with (T) and without thinking (N): h_s = B_s + R_s + r_s, where R_s = Σ_{i∈I} z_i d_i is the reasoning part
(unit atoms d_i, activations z_i ≥ 0; a = z of T, b = z of N), B_s the semantic part, r_s the autoencoder's residual.
Δ = a − b, S = Σ Δ_i, g = ‖h_T‖² − ‖h_N‖², k the number of active reasoning features."""

ASSUMPTIONS = {
    "A1": "⟨d_i, d_j⟩ ≥ −μ for active i ≠ j in I  (implied by the paper's |⟨d_i, d_j⟩| ≤ μ)",
    "A2": "‖r_s‖ ≤ ε‖h_s‖",
    "A3": "|⟨B_s, R_s⟩| ≤ δ‖B_s‖‖R_s‖, δ < 1",
    "A4": "‖b‖₁ ≤ ρ‖a‖₁, ρ < 1, and |‖B_T‖² − ‖B_N‖²| ≤ κ‖B_N‖²",
}

STATEMENT = """\
Ω = κ‖B_N‖² + 2δ(‖B_T‖‖R_T‖ + ‖B_N‖‖R_N‖) + (2ε + ε²)(‖h_T‖² + ‖h_N‖²)

signed form (the primary one):   (1 − ρ) √(g − Ω)₊  ≤  S  ≤  √((g + Ω)₊ / (c − ρ²))
ordered form (needs Δ ≥ 0):      √((g − Ω)₊ (1 − ρ)/(1 + ρ))  ≤  S  ≤  √((g + Ω)₊ / (c − 2μρ/(1 − ρ)))

with c = (1 − μ(k − 1))/k or the sharper c⋆ = min wᵀGw over the simplex; an upper half needs its denominator > 0."""


@dataclass(frozen=True)
class ProofPart:
    """A part of the proof: its title, the certificates for k atoms, and every k for which they are checked.

    Every monomial has at most two different indices and a coefficient that, times k, is of first degree in k: what
    holds for k = 2 and 3 holds for all k ≥ 2.
    """

    title: str
    proof: Callable[[int], Proof]
    sizes: tuple[int, ...] = (1, 2, 3)


PARTS = (
    ProofPart(
        "Slack: |g − E| ≤ Ω ≤ Ω_obs with E = ‖R_T‖² − ‖R_N‖² (steps 1 and 5)", lambda k: slack_proof(), (1,)
    ),
    ProofPart("Signed form: E against S², whatever the signs of Δ", signed_proof),
    ProofPart("Ordered form: E against S² for Δ ≥ 0 (steps 2, 3 and 4)", ordered_proof),
    ProofPart(
        "The constant c⋆: at least the coherence constant, and at least what `c_star` returns", hull_proof
    ),
)


@dataclass(frozen=True)
class CheckedStep:
    """A step of the proof, what it was derived from, and why it fails (no reasons if it holds).

    terms: how many weights and squares had to be non-negative, over all sizes.
    """

    part: str
    name: str
    statement: str
    sizes: tuple[int, ...]
    reasons: tuple[str, ...]
    terms: int
    flaws: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.flaws


def check_theorem(parts: Sequence[ProofPart] = PARTS) -> Iterator[CheckedStep]:
    """Check the whole proof, step by step, each for every size at once."""
    for part in parts:
        for one_step in zip(*(part.proof(k).flaws() for k in part.sizes), strict=True):
            steps = [step for step, _ in one_step]
            facts = [fact for step in steps for _, fact in step.weighted]
            yield CheckedStep(
                part=part.title,
                name=steps[0].name,
                statement=steps[0].statement,
                sizes=part.sizes,
                reasons=tuple(dict.fromkeys(fact.why for fact in facts)),
                terms=sum(not fact.equality for fact in facts) + sum(len(step.squares) for step in steps),
                flaws=tuple(
                    f"k = {k}: {flaw}"
                    for k, (_, found) in zip(part.sizes, one_step, strict=True)
                    for flaw in found
                ),
            )
