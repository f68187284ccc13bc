"""A problem with what a model is to write in both modes, read at once: the two responses share the prompt.

Neither response sees the other, so that the loss is that of two texts; half of what is read are prompts otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from normprobe.problems.smol_thinker.families import Demonstration

CLOSED = "<think>\n\n</think>\n\n"
"""What the chat template puts behind the prompt where a model is not to think."""


@dataclass(frozen=True)
class Dialogue:
    """Token ids of a prompt and of its two responses; `no_think` begins with the closed thought, not predicted."""

    prompt: list[int]
    think: list[int]
    closed: list[int]
    no_think: list[int]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.think, *self.closed, *self.no_think]

    @property
    def n_predicted(self) -> int:
        return len(self.think) + len(self.no_think)


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


def response(demonstration: Demonstration, mode: str) -> str:
    """What the model writes after its prompt. Without a thought, the prompt has closed it already."""
    answer = "".join(text for text, _ in demonstration.answer)
    if mode == "no_think":
        return f"{answer}<|im_end|>"
    thought = "".join(text for text, _ in demonstration.thought)
    return f"<think>\n{thought}\n</think>\n\n{answer}<|im_end|>"


def answer_of(written: str, mode: str) -> str | None:
    """The answer in what a model wrote after its prompt; None where it should have thought and closed no thought."""
    _, closed, answer = written.partition("<|im_end|>")[0].rpartition("</think>")
    return answer.strip() if closed or mode == "no_think" else None


def dialogue(tokenizer: PreTrainedTokenizerBase, question: str, shown: Demonstration) -> Dialogue:
    """A question with its demonstration, in token ids."""
    texts = (
        prompt(tokenizer, question, "think"),
        response(shown, "think"),
        CLOSED,
        response(shown, "no_think"),
    )
    return Dialogue(*(tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts))


def collate(
    batch: Sequence[Dialogue], device: torch.device
) -> tuple[
    Int[torch.Tensor, "dialogue token"],
    Int[torch.Tensor, "dialogue token"],
    Bool[torch.Tensor, "dialogue 1 token token"],
    Bool[torch.Tensor, "dialogue token"],
]:
    """Ids (padded on the right), positions, what each token may read, and which tokens are predicted.

    A predicted token is predicted by the token before it.
    """
    n_tokens = max(len(each.ids) for each in batch)
    ids, positions = torch.zeros(2, len(batch), n_tokens, dtype=torch.long)
    reads = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril().repeat(len(batch), 1, 1, 1)
    predicted = torch.zeros(len(batch), n_tokens, dtype=torch.bool)
    for row, each in enumerate(batch):
        end = len(each.ids)
        thought = len(each.prompt)
        closed = thought + len(each.think)
        ids[row, :end] = torch.tensor(each.ids)
        positions[row, :closed] = torch.arange(closed)
        positions[row, closed:end] = torch.arange(thought, thought + end - closed)
        reads[row, :, closed:, thought:closed] = False
        predicted[row, thought:closed] = True
        predicted[row, closed + len(each.closed) : end] = True
    return ids.to(device), positions.to(device), reads.to(device), predicted.to(device)
