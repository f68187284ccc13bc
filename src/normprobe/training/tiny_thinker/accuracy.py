"""Accuracy of a model on testbed problems, per problem: greedy, or sampled at temperature 1."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from normprobe.problems.testbed.problems import Problem
from normprobe.problems.testbed.scoring import correct
from normprobe.problems.testbed.vocabulary import END_THINK, MAX_DIFFICULTY

MAX_NEW_TOKENS = 24 + 16 * MAX_DIFFICULTY
"""Longer than any reference response (the longest, a boolean thought of 8 steps, has about 140 tokens)."""


def prompt(tokenizer: PreTrainedTokenizerFast, problem: Problem, mode: str) -> str:
    """The chat prompt of a problem in a mode; filler is as long as the reference thought."""
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.question}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=mode == "think",
            filler_tokens=len(problem.thought) if mode == "filler" else 0,
        )
    )


@torch.inference_mode()
def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    mode: str,
    *,
    batch_size: int = 256,
    sampling_seed: int | None = None,
) -> Bool[np.ndarray, " problem"]:
    """Whether the answer to each problem is right: greedy, or sampled at temperature 1 from a seed.

    An answer counts only after the thought was closed.
    """
    order = sorted(range(len(problems)), key=lambda i: (len(problems[i].thought), i))
    right = np.zeros(len(problems), dtype=bool)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        inputs = tokenizer(
            [prompt(tokenizer, problems[i], mode) for i in rows], return_tensors="pt", padding=True
        ).to(model.device)
        length = inputs["input_ids"].shape[1]
        how = {} if sampling_seed is None else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        # transformers samples from the global generators only: fork them, so that nothing outside sees the seed.
        with torch.random.fork_rng():
            if sampling_seed is not None:
                torch.manual_seed(sampling_seed + start)
            output = model.generate(  # pyright: ignore[reportCallIssue]  its mixin is typed as a tensor
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS if mode == "think" else 8,
                do_sample=sampling_seed is not None,
                **how,
            )
        for i, text in zip(
            rows, tokenizer.batch_decode(output[:, length:], skip_special_tokens=True), strict=True
        ):
            _, closed, answer = text.rpartition(END_THINK)
            right[i] = correct(answer if closed or mode != "think" else "", problems[i].answer)
    return right
