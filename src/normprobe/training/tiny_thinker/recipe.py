"""The recipe of tiny-thinker: its shape, its schedule and its reading matter. Fixed before any claim was run.

It resembles practice where two cores allow: pretraining on all tokens of the testbed's text (worked solutions,
bare answers and pages of facts, easier problems first), then the three modes with loss on responses only, every
mode on the same problems, so that `no_think` gets as many answer updates as `think`, of the same weight. Where it
departs from common practice, time forced it: Muon for the matrices (in an earlier trial on a smaller testbed it
reached in 200 steps a loss that AdamW was far from), AdamW for the embedding and norms, both with weight decay 0.1.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from transformers import Qwen3Config

from normprobe.problems.testbed.problems import Problem, draw_problem
from normprobe.problems.testbed.vocabulary import (
    DOMAINS,
    END,
    END_THINK,
    FACTS,
    FILLER,
    MAX_DIFFICULTY,
    PAD,
    PEOPLE,
    RELATIONS,
    START,
    THINK,
    VOCABULARY,
)
from normprobe.training.microbatches import microbatches

IDS = {word: i for i, word in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, together with the code, the machine and its thread count."""

    seed: int = 0
    n_steps: int = 4000
    pretraining_share: float = 0.4375  # of the steps; the rest trains the three modes
    curriculum_share: float = 0.5  # of pretraining, over which the hardest difficulty rises from 2 to 8
    early_share: float = 0.1875  # of the steps, after which the early checkpoint is kept
    warmup_share: float = (
        0.5  # of the steps, after which the checkpoint is kept that training by rewards starts from
    )
    microbatches: int = 3  # per step, each of one length class
    microbatch_tokens: int = 4096  # with padding
    steps_per_pool: int = 20  # sequences are drawn and sorted by length this many steps at a time
    optimiser: Literal["muon", "adamw"] = "muon"  # of the matrices inside the blocks; AdamW trains all others
    muon_dtype: Literal["float32", "bfloat16"] = "float32"  # of its update; bfloat16 made the bundled weights
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    weight_decay: float = 0.1
    z_loss: float = 0.0  # weight of the mean squared log of the softmax's sum (arXiv 2204.02311)
    thought_weight: float = 1.0  # of a thought's tokens in the loss, where an answer's have 1
    warmup_steps: int = 100
    decay_share: float = 0.5  # of the steps, at the end, over which the learning rates fall linearly to zero
    clip_norm: float = 1.0

    def learning_rate_factor(self, step: int) -> float:
        """Trapezoid: warm-up, constant, linear decay to zero."""
        decay = (self.n_steps - step) / (self.decay_share * self.n_steps)
        return max(0.0, min(1.0, (step + 1) / self.warmup_steps, decay))

    @property
    def pretraining_steps(self) -> int:
        return round(self.pretraining_share * self.n_steps)

    @property
    def early_step(self) -> int:
        return round(self.early_share * self.n_steps)

    @property
    def warmup_step(self) -> int:
        return round(self.warmup_share * self.n_steps)


@dataclass
class Sequence:
    """Token ids, and for each token the weight of its loss as a target (0: not predicted)."""

    ids: list[int]
    weights: list[float]


def model_config() -> Qwen3Config:
    """The architecture: a real Qwen3 with 12 layers and 1.8 M parameters (7.2 MB in float32)."""
    return Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=IDS[END],
        pad_token_id=IDS[PAD],
    )


def _encode(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def document(problem: Problem, worked: bool) -> Sequence:
    """Pretraining text: a question, its solution if `worked`, its answer. Every token is predicted."""
    solution = f" {problem.thought_text}" if worked else ""
    ids = _encode(f"{problem.question}{solution} answer : {problem.answer} {PAD}")
    return Sequence(ids, [0.0] + [1.0] * (len(ids) - 1))


def facts_page(rng: random.Random, n_facts: int = 12) -> Sequence:
    """Pretraining text: some of the table's facts."""
    facts = zip(rng.choices(PEOPLE, k=n_facts), rng.choices(RELATIONS, k=n_facts), strict=True)
    ids = _encode(" ".join(f"{p} {r} is {FACTS[r][p]} ;" for p, r in facts) + f" {PAD}")
    return Sequence(ids, [0.0] + [1.0] * (len(ids) - 1))


def dialogue(problem: Problem, mode: str, thought_weight: float = 1.0) -> Sequence:
    """A chat in one mode, as the chat template renders it.

    Only the response is predicted, never what the template inserts (else the model learns to close its thought at
    once). An answer counts alike in every mode; by default every token weighs the same, as is usual.
    """
    prompt = f"{START} user {problem.question} {END} {START} assistant {THINK}"
    thought = f"{problem.thought_text} {END_THINK}" if mode == "think" else ""
    if mode != "think":
        dots = f" {FILLER}" * len(problem.thought) if mode == "filler" else ""
        prompt = f"{prompt}{dots} {END_THINK}"
    parts = [_encode(text) for text in (prompt, thought, f"answer : {problem.answer} {END}")]
    weights = zip(parts, (0.0, thought_weight, 1.0), strict=True)
    return Sequence([i for part in parts for i in part], [weight for part, weight in weights for _ in part])


def sequences(recipe: Recipe, rng: random.Random, step: int) -> Iterator[Sequence]:
    """An endless stream of training sequences for the stage in which `step` lies."""
    pretraining = step < recipe.pretraining_steps
    rise = step / (recipe.curriculum_share * recipe.pretraining_steps)
    hardest = min(MAX_DIFFICULTY, 2 + int(rise * (MAX_DIFFICULTY - 1)))
    while True:
        problem = draw_problem(rng, rng.choice(DOMAINS), rng.randint(1, hardest), "train")
        if not pretraining:
            modes = ("think", "no_think", "filler")
            yield from (dialogue(problem, mode, recipe.thought_weight) for mode in modes)
            continue
        yield document(problem, worked=True)
        yield document(draw_problem(rng, problem.domain, problem.difficulty, "train"), worked=False)
        if rng.random() < 0.2:
            yield facts_page(rng)


def pool(recipe: Recipe, index: int) -> list[list[list[Sequence]]]:
    """The steps `index · steps_per_pool …` of training: for each step its microbatches of sequences of like length.

    A function of (seed, index) alone, so that a resumed run reads what an uninterrupted one would have read.
    """
    rng = random.Random(f"pool {recipe.seed} {index}")
    stream = sequences(recipe, rng, index * recipe.steps_per_pool)
    return microbatches(stream, recipe.microbatches, recipe.microbatch_tokens, recipe.steps_per_pool, rng)
