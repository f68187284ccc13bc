"""The output entropies that the tokens of responses were drawn with, read once they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from normprobe.engines.base import batches_by_length
from normprobe.engines.inverse_cdf import output_entropy
from normprobe.models.model import OpenModel
from normprobe.tracing.stream import pad

BATCH = 32
"""Responses read at once; their logits are held."""


@torch.inference_mode()
def drawn_entropies(
    opened: OpenModel, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
) -> list[Float[np.ndarray, " state"]]:
    """By response, the entropy in nats that each state of it is known by (`normprobe.policies.rows.Rows.entropy`): that
    of the distribution which its own token was drawn from, and 0 for the last token of the prompt, which was given.

    The plain model reads prompt and response in one pass.
    """
    found: list[Float[np.ndarray, " state"]] = [np.zeros(len(tokens), np.float32) for tokens in written]
    for members in batches_by_length(prompts, BATCH):
        whole = [[*prompts[i], *written[i]] for i in members]
        ids, mask = (torch.from_numpy(part).to(opened.device) for part in pad(whole))
        logits = opened.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for row, i in enumerate(members):
            first = len(prompts[i]) - 1
            drawn = output_entropy(logits[row, first : first + len(written[i]) - 1])
            found[i][1:] = drawn.cpu().numpy()
    return found
