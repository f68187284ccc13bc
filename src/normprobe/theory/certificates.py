"""Certificates: inequalities proved by an identity that a computer can expand.

A certificate says larger ≥ smaller because

    larger − smaller  =  Σ weight · fact  +  Σ square

is an identity of rational functions; every weight and square is non-negative by the signs of its symbols alone; and
every fact was assumed, or certified before. Checking one takes no judgement: expand, and look at the signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sympy import Add, Expr, cancel, sympify, together


@dataclass(frozen=True)
class Fact:
    """expression ≥ 0 (= 0 for an equality), and why."""

    why: str
    expression: Expr
    equality: bool = False


@dataclass(frozen=True)
class Certificate:
    """larger ≥ smaller: `weighted` are pairs (weight, fact); `squares` are named after what they usually are.

    Without squares, and with no fact but equalities, larger = smaller.
    """

    name: str
    statement: str
    larger: Expr
    smaller: Expr
    weighted: Sequence[tuple[Expr | int, Fact]] = ()
    squares: Sequence[Expr] = ()

    @property
    def conclusion(self) -> Fact:
        """What is certified, as a fact for later certificates."""
        equality = not self.squares and all(fact.equality for _, fact in self.weighted)
        return Fact(self.name, self.larger - self.smaller, equality)

    @property
    def rest(self) -> Expr:
        """larger − smaller less all that is said to make it up, as it stands; the identity says that this is 0."""
        parts = [weight * fact.expression for weight, fact in self.weighted]
        return self.larger - self.smaller - Add(*parts, *self.squares)

    @property
    def signs_hold(self) -> bool:
        """Whether every weight and square is non-negative; a weight on an equality may have any sign."""
        weights = [sympify(weight) for weight, fact in self.weighted if not fact.equality]
        return all(expression.is_nonnegative is True for expression in (*weights, *self.squares))

    def check(self) -> bool:
        return self.signs_hold and cancel(together(self.rest)) == 0


@dataclass(frozen=True)
class Proof:
    """Certificates in order, and all that they assume."""

    assumed: Sequence[Fact]
    steps: Sequence[Certificate]

    def flaws(self) -> list[str]:
        """Why this is no proof, one line per reason; empty for a proof."""
        known, found = set(self.assumed), []
        for step in self.steps:
            if not step.check():
                found.append(f"{step.name}: the identity does not hold, or a sign is not known")
            found += [
                f"{step.name}: “{fact.why}” is neither assumed nor certified before"
                for _, fact in step.weighted
                if fact not in known
            ]
            known.add(step.conclusion)
        return found
