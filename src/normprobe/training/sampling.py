"""Write responses on a GPU with one CUDA graph for a token, where launching its kernels would take most of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

EVERY = 16
"""Tokens between two looks at whether all responses have ended, for which the device is waited for."""


class _Cache:
    """Keys and values in buffers of a fixed size, written at positions that a tensor holds."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.at: Tensor

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write those of new tokens; returns all."""
        if layer not in self.layers:
            batch, heads, _new, width = keys.shape
            self.layers[layer] = (
                keys.new_zeros(batch, heads, self.n_tokens, width),
                values.new_zeros(batch, heads, self.n_tokens, values.shape[-1]),
            )
        for buffer, new in zip(self.layers[layer], (keys, values), strict=True):
            buffer.index_copy_(2, self.at, new)
        return self.layers[layer]


@torch.no_grad()
def respond(
    model: PreTrainedModel,
    ids: Int[Tensor, "response prompt"],
    mask: Int[Tensor, "response prompt"],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    temperature: float | None,
) -> Int[Tensor, "response token"]:
    """What a model writes after prompts that are padded on the left: greedy (temperature None) or sampled.

    Behind its end (one of `ends`) a response is filled with the first of `ends`. The model is as Transformers' decoders
    are: positions, a 4-D mask and a cache can be given to it. Draws come from the device's global generator.
    """
    if (
        ids.device.type == "cpu"
    ):  # where a launch costs little, and Transformers reads only what its cache holds
        generate: Any = model.generate
        how = {} if temperature is None else {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        written = generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=temperature is not None,
            eos_token_id=list(ends),
            pad_token_id=ends[0],
            **how,
        )[:, ids.shape[1] :]
    else:
        written = respond_in_buffers(model, ids, mask, ends, max_new_tokens, temperature)
    found = torch.isin(written, torch.tensor(ends, device=ids.device)).long()
    return written.masked_fill(found.cumsum(1) > found, ends[0])


@torch.no_grad()
def respond_in_buffers(
    model: PreTrainedModel,
    ids: Int[Tensor, "response prompt"],
    mask: Int[Tensor, "response prompt"],
    ends: Sequence[int],
    max_new_tokens: int,
    temperature: float | None,
) -> Int[Tensor, "response token"]:
    """The tokens of `respond`, and whatever follows an end, from buffers that a CUDA graph can read."""
    n_prompt = ids.shape[1]
    cache = _Cache(n_prompt + max_new_tokens)
    # What may be read: a token of the prompt reads itself too if it is padding, since a softmax over nothing is nan.
    reads = torch.zeros(len(ids), 1, n_prompt, cache.n_tokens, dtype=torch.bool, device=ids.device)
    reads[..., :n_prompt] = torch.ones_like(reads[0, 0, :, :n_prompt]).tril() & mask.bool()[:, None, None]
    reads[..., :n_prompt] |= torch.eye(n_prompt, dtype=torch.bool, device=ids.device)
    cache.at = torch.arange(n_prompt, device=ids.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def logits(tokens: Tensor, positions: Tensor, reads: Tensor) -> Tensor:
        call: Any = model
        return call(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=reads,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def drawn(logits: Tensor) -> Tensor:
        if temperature is None:
            return logits.argmax(-1, keepdim=True)
        return torch.multinomial((logits.float() / temperature).softmax(-1), 1)

    written = [drawn(logits(ids, positions, reads))]
    token, position = written[0].clone(), positions[:, -1:] + 1
    cache.at = torch.tensor([n_prompt], device=ids.device)
    reads = torch.cat([mask.bool(), mask.new_zeros(len(ids), max_new_tokens).bool()], 1)[:, None, None]
    reads[..., n_prompt] = True
    step = _one_more(lambda: logits(token, position, reads), ids.device)
    end_ids = torch.tensor(ends, device=ids.device)
    ended = torch.isin(written[0], end_ids)
    for number in range(1, max_new_tokens):
        if number % EVERY == 0 and bool(ended.all()):
            break
        token.copy_(drawn(step()))
        written.append(token.clone())
        ended |= torch.isin(token, end_ids)
        position += 1
        cache.at += 1
        reads.index_fill_(3, cache.at.clamp(max=cache.n_tokens - 1), True)
    return torch.cat(written, 1)


def _one_more(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """The step as a CUDA graph, which reads and writes the same buffers at every call; on a CPU as it is."""
    if device.type != "cuda":
        return step
    # The first call outside the graph makes what libraries make at their first call. It writes what the graph's
    # first replay writes again.
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
