"""Decode a batch of prompts: greedy, or sampled with draws given from outside. One host check per step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from normprobe.engines.base import holds_stop
from normprobe.engines.hf.shared_prefix import read_shared
from normprobe.engines.inverse_cdf import inverse_cdf, output_entropy
from normprobe.models.model import OpenModel

_SHRINK_BELOW = 0.8
"""Share of unfinished rows below which the finished ones leave the batch: dropping costs a copy of the cache."""
OnPass = Callable[
    [Int[torch.Tensor, " present"], Int[torch.Tensor, "present token"], Float[torch.Tensor, " present"]], None
]
"""Called before each forward pass with the numbers of the prompts that its rows continue, the position of each token,
counted without padding (−1 at padding and in finished rows), and the entropy, nats at temperature 1, of the
distribution that the newest token was taken from (0 for prompts)."""


@torch.inference_mode()
def decode(
    opened: OpenModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
    *,
    draws: Float[np.ndarray, "row step"] | None = None,
    stop: Sequence[str] = (),
    on_pass: OnPass | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt: at most `max_new_tokens`, up to and with the first of `opened.chat.eos_ids`
    or the token that completes a string of `stop` in what follows the thought.

    Greedy at temperature 0. Else the next token is the inverse of the cumulated softmax(logits / temperature) at
    `draws[row, step]` in [0, 1), so a row's tokens depend on its prompt and its draws, not on the other rows (but for
    ties within the rounding of a batched product). Prompts that all begin the longest are read once (`read_shared`), if
    nobody asks `on_pass` about their tokens.
    """
    device = opened.device
    rows = [torch.tensor(prompt) for prompt in prompts]
    step_ids, mask = (
        pad_sequence(values, batch_first=True, padding_side="left").to(device)
        for values in (rows, [torch.ones_like(one) for one in rows])
    )
    position = torch.where(mask.bool(), mask.cumsum(dim=1), 0) - 1
    eos = torch.tensor(sorted(opened.chat.eos_ids), device=device)
    uniform = None if draws is None else torch.from_numpy(draws).to(device)

    cache = DynamicCache(config=opened.model.config)
    # transformers 5.24 renamed the argument.
    renamed = "cache" in inspect.signature(opened.model.forward).parameters
    cached: dict[str, Any] = {"cache" if renamed else "past_key_values": cache}
    if on_pass is None and read_shared(opened, prompts, cached):
        step_ids, position = step_ids[:, -1:], position[:, -1:]
    written = torch.full((len(prompts), max_new_tokens), -1, dtype=torch.int64, device=device)
    row = torch.arange(len(prompts), device=device)
    going = torch.ones(len(prompts), dtype=torch.bool, device=device)
    entropy = torch.zeros(len(prompts), device=device)
    for step in range(max_new_tokens):
        if on_pass is not None:
            on_pass(row, torch.where(going[:, None], position, -1), entropy)
        logits = opened.model(
            input_ids=step_ids,
            attention_mask=mask,
            position_ids=position.clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
            **cached,
        ).logits[:, -1]
        if on_pass is not None:
            entropy = output_entropy(logits)
        if temperature > 0:
            assert uniform is not None, "sampling needs draws"
            chosen = inverse_cdf(logits / temperature, uniform[row, step])
        else:
            chosen = logits.argmax(dim=-1)
        written[row, step] = torch.where(going, chosen, -1)
        going = going & ~torch.isin(chosen, eos)
        if stop:
            so_far = zip(row.tolist(), written[row, : step + 1].tolist(), strict=True)
            going &= torch.tensor(
                [
                    not holds_stop(opened.chat, prompts[i], [token for token in ids if token >= 0], stop)
                    for i, ids in so_far
                ],
                device=device,
            )
        n_going = int(going.sum())
        if n_going == 0:
            break
        step_ids, position = chosen[:, None], position[:, -1:] + 1
        if n_going < _SHRINK_BELOW * len(row):
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            row, going, mask, step_ids, position, entropy = (
                x[keep] for x in (row, going, mask, step_ids, position, entropy)
            )
        mask = torch.cat([mask, mask.new_ones(len(row), 1)], dim=1)
    return [tokens[tokens >= 0].tolist() for tokens in written.cpu().numpy()]
