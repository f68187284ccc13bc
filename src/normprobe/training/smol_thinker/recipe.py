"""The recipe of smol-thinker by supervised fine-tuning: adapters, schedule and reading matter. Fixed before any claim.

Each problem is read in both modes, so that `no_think` gets as many answer tokens as `think`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from normprobe.problems.smol_thinker.families import FAMILIES, FamilyProblem
from normprobe.training.microbatches import microbatches
from normprobe.training.smol_thinker.dialogue import Dialogue, dialogue


@dataclass(frozen=True)
class SftRecipe:
    """What decides the trained adapters, together with the code, the machine and its thread count."""

    seed: int = 0
    n_steps: int = 500
    microbatches: int = 2
    """per step, each of problems of like length"""
    microbatch_tokens: int = 1024
    """with padding"""
    steps_per_pool: int = 20
    """problems are drawn and sorted by length this many steps at a time"""
    rank: int = 16
    """of the adapters, which are on all linear layers"""
    alpha: int = 32
    lr: float = 1e-3
    warmup_steps: int = 20
    decay_share: float = 0.6
    """of the steps, at the end, over which the learning rate falls to zero"""
    warmup_share: float = 0.25
    """of the steps, after which the checkpoint is kept from which reinforcement learning starts"""
    clip_norm: float = 1.0

    def learning_rate_factor(self, step: int) -> float:
        """Warm-up, constant, linear decay to zero."""
        decay = (self.n_steps - step) / (self.decay_share * self.n_steps)
        return max(0.0, min(1.0, (step + 1) / self.warmup_steps, decay))

    @property
    def warmup_step(self) -> int:
        return round(self.warmup_share * self.n_steps)


def problems_for_training(rng: random.Random) -> Iterator[FamilyProblem]:
    """An endless stream: a family, a level and a problem of it."""
    while True:
        family = FAMILIES[rng.choice(list(FAMILIES))]
        level = rng.randint(1, len(family.levels))
        yield family.problems(level, 1, rng.randrange(2**31))[0]


def pool(recipe: SftRecipe, tokenizer: PreTrainedTokenizerBase, index: int) -> list[list[list[Dialogue]]]:
    """The steps `index · steps_per_pool …` of training: for each step its microbatches.

    A function of (seed, index) alone, so that a resumed run reads what an uninterrupted one would have read.
    """
    rng = random.Random(f"smol-thinker {recipe.seed} {index}")
    stream = (
        dialogue(tokenizer, problem.question, FAMILIES[problem.family].demonstrate(problem))
        for problem in problems_for_training(rng)
    )
    return microbatches(stream, recipe.microbatches, recipe.microbatch_tokens, recipe.steps_per_pool, rng)
