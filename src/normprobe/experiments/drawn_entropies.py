"""The output entropies that the tokens of responses were drawn with, read once they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from normprobe.engines.base import batches_by_length
from normprobe.models.model import OpenModel
from normprobe.models.sites import visit_sites
from normprobe.tracing.lens import read_lens
from normprobe.tracing.stream import pad

BATCH = 32
"""Responses read at once."""
SCRATCH = 2**24
"""Logits held at once: those of a batch of long responses over a large vocabulary would be many gigabytes."""


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
        latest: list[torch.Tensor] = []

        def keep(layer: int, hidden: torch.Tensor, latest: list[torch.Tensor] = latest) -> None:
            latest[:] = [hidden]

        with visit_sites(opened, keep):
            opened.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        (last,) = latest
        for row, i in enumerate(members):
            first, n = len(prompts[i]) - 1, len(written[i]) - 1
            following = torch.tensor(written[i][:n], dtype=torch.int64)
            drawn, _ = read_lens(opened.anatomy, last[row, first : first + n], following, SCRATCH)
            found[i][1:] = drawn.cpu().numpy()
    return found
