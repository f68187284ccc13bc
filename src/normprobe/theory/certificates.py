"""Certificates: inequalities proved by an identity that a computer can expand.

A certificate says larger ≥ smaller because

    larger − smaller  =  Σ weight · fact  +  Σ square

is an identity of rational functions; every weight and square is non-negative by the signs of its symbols alone; and
every fact was assumed, or certified before. Checking one takes no judgement: expand, and look at the signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """The claim larger ≥ smaller with its reasons: pairs (weight, fact), and squares (or other terms that are ≥ 0).

    Without squares, and with no fact but equalities, the claim is larger = smaller.
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
        """larger − smaller − Σ weight · fact − Σ square, not yet expanded; the identity claims that it is 0."""
        parts = [weight * fact.expression for weight, fact in self.weighted]
        return self.larger - self.smaller - Add(*parts, *self.squares)

    @property
    def signs_hold(self) -> bool:
        """Whether every weight and square is non-negative; a weight on an equality may have any sign."""
        weights = [sympify(weight) for weight, fact in self.weighted if not fact.equality]
        return all(expression.is_nonnegative is True for expression in (*weights, *self.squares))

    def check(self) -> bool:
        """Whether the identity holds, by expanding it, and all signs are known."""
        return self.signs_hold and cancel(together(self.rest)) == 0


@dataclass(frozen=True)
class Proof:
    """Certificates in order, and all that they assume."""

    assumed: Sequence[Fact]
    steps: Sequence[Certificate]

    def flaws(self) -> Iterator[tuple[Certificate, list[str]]]:
        """Check step after step: each with the reasons why it proves nothing, none for a step that holds."""
        known = set(self.assumed)
        for step in self.steps:
            found = [] if step.check() else ["the identity does not hold, or a sign is not known"]
            found += [
                f"“{fact.why}” is neither assumed nor certified before"
                for _, fact in step.weighted
                if fact not in known
            ]
            known.add(step.conclusion)
            yield step, found
