"""At least 500 demonstrations of every family of smol-thinker, from all its levels, and responses made of them."""

from collections.abc import Sequence
from functools import lru_cache

from normprobe.problems.smol_thinker.families import FAMILIES, Demonstration, FamilyProblem
from normprobe.problems.smol_thinker.lines import Part

FEWEST = 500


@lru_cache
def demonstrations(family: str) -> list[tuple[FamilyProblem, Demonstration]]:
    """`FEWEST` training problems or a few more, as many of each level, level by level, with their demonstrations."""
    chosen = FAMILIES[family]
    n_levels = len(chosen.levels)
    problems = [
        problem
        for level in range(1, n_levels + 1)
        for problem in chosen.problems(level, -(-FEWEST // n_levels), seed=7)
    ]
    return [(problem, chosen.demonstrate(problem)) for problem in problems]


def response(thought: Sequence[Part], answer: Sequence[Part]) -> list[Part]:
    """What a model that writes its own marks would write, in parts."""
    return [
        ("<think>", "format"),
        ("\n", "format"),
        *thought,
        ("\n", "format"),
        ("</think>", "format"),
        ("\n\n", "format"),
        *answer,
        ("<|im_end|>", "format"),
    ]


def text_of(parts: Sequence[Part]) -> str:
    return "".join(text for text, _ in parts)
