"""How well a subject's trained dictionaries read states that they were not trained on.

The states are those of the split "select": all of the split "sae" may be in the training, and a dictionary reads the
tokens that it was fitted to better than any others. On "select" features are chosen, for which R² is not looked at; the
split "measure" stays what claims alone are measured on.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from jaxtyping import Float

from normprobe.models.model import OpenModel
from normprobe.saes.activations import Chunk, draw_tokens, layer_groups
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.state_reader import StateReader
from normprobe.saes.training import generator_for

_CODES_AT_ONCE = 2**24


def held_out_quality(
    opened: OpenModel,
    held_out: pd.DataFrame,
    dictionaries: Mapping[int, Dictionary],
    subject: str,
    *,
    n: int,
    seed: int,
    state_memory: int,
    memory: int | None = None,
) -> pd.DataFrame:
    """A row per layer of `dictionaries`: subject, layer, held_out_tokens, and `quality` on them as …_held_out.

    held_out: responses of the split "select". n: tokens at most, the same for every subject and layer. state_memory:
    bytes that their states may take, as many layers at once as fit. memory: as `StateReader` has it. Raises
    NormprobeError as `StateReader` does.
    """
    of_token = opened.identity.d_model * opened.model.dtype.itemsize
    rows = draw_tokens(held_out, min(n, state_memory // of_token), generator_for(seed, "held-out tokens"))
    found = []
    for group in layer_groups(list(dictionaries), len(rows) * of_token, state_memory):
        reader = StateReader(opened, subject, group, [Chunk(held_out, rows)], memory)
        for layer, states in zip(group, reader.read(0), strict=True):
            of_states = quality(dictionaries[layer], states)
            numbers = {f"{name}_held_out": value for name, value in of_states.items()}
            found.append({"subject": subject, "layer": layer, "held_out_tokens": len(rows), **numbers})
    return pd.DataFrame(found)


@torch.no_grad()
def quality(dictionary: Dictionary, states: Float[torch.Tensor, "row d"]) -> dict[str, float]:
    """How a dictionary reads these states: r2 = 1 − Σ‖r‖²/Σ‖h − h̄‖², l0 (active features per token, mean),
    dead_fraction (features that fire on none). SAELens's own "explained variance" averages over tokens first and is
    another number."""
    mean = states.mean(dim=0, dtype=torch.float64)
    residual = total = active = 0.0
    fired = torch.zeros(dictionary.width, dtype=torch.bool)
    for part in states.split(max(1, _CODES_AT_ONCE // dictionary.width)):
        h = part.to(dictionary.atoms.device, torch.float32)
        z = dictionary.encode(h)
        residual += float((h - dictionary.reconstruct(z)).square().sum(dtype=torch.float64))
        total += float((part.double() - mean).square().sum())
        active += float((z > 0).sum())
        fired |= (z > 0).any(dim=0).cpu()
    dead = 1 - float(fired.float().mean())
    return {"r2": 1 - residual / total, "l0": active / len(states), "dead_fraction": dead}
