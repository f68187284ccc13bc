"""The recipe of smol-thinker by supervised fine-tuning: adapters, schedule and reading matter. Fixed before any claim.

Each problem is read in two modes, with its thought and without, so that `no_think` gets as many answer tokens as
`think`. Only responses are predicted. Steps read sequences of like length together, which wastes little on padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from normprobe.problems.smol_thinker.families import FAMILIES, Demonstration, FamilyProblem
from normprobe.problems.testbed.recipe import Sequence, microbatches


@dataclass(frozen=True)
class SftRecipe:
    """What decides the trained adapters, together with the code, the machine and its thread count."""

    seed: int = 0
    n_steps: int = 400
    microbatches: int = 4
    """per step, each of sequences of like length"""
    microbatch_tokens: int = 1024
    """with padding"""
    steps_per_pool: int = 20
    """sequences are drawn and sorted by length this many steps at a time"""
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


def response(demonstration: Demonstration, mode: str) -> str:
    """What the model writes after its prompt. Without a thought, the prompt has closed it already."""
    answer = "".join(text for text, _ in demonstration.answer)
    if mode == "no_think":
        return f"{answer}<|im_end|>"
    thought = "".join(text for text, _ in demonstration.thought)
    return f"<think>\n{thought}\n</think>\n\n{answer}<|im_end|>"


def prompt(tokenizer: PreTrainedTokenizerBase, question: str, mode: str) -> str:
    """The question as the chat template asks it in a mode."""
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=mode == "think",
        )
    )


def dialogue(tokenizer: PreTrainedTokenizerBase, problem: FamilyProblem, written: str, mode: str) -> Sequence:
    """A chat in one mode. Every token of the response is predicted and weighs the same, nothing of the prompt."""
    asked, answered = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (prompt(tokenizer, problem.question, mode), written)
    )
    return Sequence([*asked, *answered], [0.0] * len(asked) + [1.0] * len(answered))


def sequences(
    recipe: SftRecipe, tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> Iterator[Sequence]:
    """An endless stream: a family, a level and a problem of it, in both modes."""
    while True:
        family = FAMILIES[rng.choice(list(FAMILIES))]
        level = rng.randint(1, len(family.levels))
        (problem,) = family.problems(level, 1, rng.randrange(2**31))
        shown = family.demonstrate(problem)
        yield from (
            dialogue(tokenizer, problem, response(shown, mode), mode) for mode in ("think", "no_think")
        )


def pool(recipe: SftRecipe, tokenizer: PreTrainedTokenizerBase, index: int) -> list[list[list[Sequence]]]:
    """The steps `index · steps_per_pool …` of training: for each step its microbatches.

    A function of (seed, index) alone, so that a resumed run reads what an uninterrupted one would have read.
    """
    rng = random.Random(f"smol-thinker {recipe.seed} {index}")
    stream = sequences(recipe, tokenizer, rng)
    return microbatches(stream, recipe.microbatches, recipe.microbatch_tokens, recipe.steps_per_pool, rng)
