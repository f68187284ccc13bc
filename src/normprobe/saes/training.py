"""Train one TopK autoencoder per layer, with SAELens's own training classes, on thinking and non-thinking activations.

TopK, because it fixes the number of active features: what norm and code have in common is then not put there by the
threshold. Activations are only multiplied by one scale per layer, pooled over modes (a scale per token would erase the
norm from the code), and both the scale and the lengths of the decoder's atoms are folded into the saved weights: what
is saved reads raw activations, writes codes in their units, and has atoms of length one, as the theorem asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from normprobe.errors import NormprobeError
from normprobe.models.open import OpenModel
from normprobe.saes.dictionary import save_topk
from normprobe.tracing.stream import stream_states, token_offsets

TRAINING_MODES = ("think", "no_think")


@dataclass(frozen=True)
class SaeSettings:
    """How the dictionaries are trained. The paper states none of this (see PAPER's unknowns in the README).

    width: atoms per layer. k: active features per token. n_samples: activations shown to each autoencoder, repeats counted.
    max_tokens: different tokens kept in memory to draw them from. lr: Adam's, falling linearly over the last fifth.
    """

    width: int = 512
    k: int = 16
    n_samples: int = 160_000
    batch_size: int = 256
    max_tokens: int = 60_000
    lr: float = 2e-3


def training_tokens(
    responses: pd.DataFrame, max_tokens: int, rng: np.random.Generator
) -> Bool[np.ndarray, " token"]:
    """Which tokens of the split "sae" (in the order of `token_offsets`) are trained on.

    Prompt and response tokens of the modes think and no_think, without position 0 (an attention sink, the same in
    every response); at most `max_tokens` of them, drawn without replacement.
    """
    chosen = responses[responses["split"] == "sae"]
    modes = chosen["mode"].isin(TRAINING_MODES).to_numpy()
    lengths = chosen["token_ids"].map(len).to_numpy(dtype=np.int64)
    eligible = np.repeat(modes, lengths)
    eligible[np.cumsum(lengths) - lengths] = False
    rows = np.flatnonzero(eligible)
    if not len(rows):
        raise NormprobeError(
            "expected think and no_think responses in the split 'sae', got none; give more problems"
        )
    kept = np.zeros(len(eligible), dtype=bool)
    kept[rng.choice(rows, size=min(max_tokens, len(rows)), replace=False)] = True
    return kept


def collect(
    opened: OpenModel, responses: pd.DataFrame, kept: Bool[np.ndarray, " token"]
) -> Float[torch.Tensor, "layer n d"]:
    """The kept tokens' states at every layer, on the CPU in float32: layers × tokens × d × 4 bytes, held while training.

    Raises NormprobeError if a state is not finite.
    """
    offsets, _ = token_offsets(responses, ["sae"])
    index = np.cumsum(kept) - 1
    states: torch.Tensor | None = None
    for batch in stream_states(opened, responses, ["sae"]):
        rows = offsets[batch.response_index] + batch.position
        mask = kept[rows]
        if states is None:
            n_layers, _, d = batch.states.shape
            states = torch.empty(n_layers, int(kept.sum()), d)
        states[:, torch.from_numpy(index[rows[mask]])] = batch.states[:, torch.from_numpy(mask)].cpu()
    assert states is not None
    finite = torch.isfinite(states).all(dim=(1, 2))
    if not finite.all():
        layer = int((~finite).nonzero()[0])
        raise NormprobeError(
            f"expected finite activations to train on, got NaN or infinity in layer {layer} of {opened.identity.name}; "
            "open the model in float32"
        )
    return states


def train_layer(
    states: Float[torch.Tensor, "n d"],
    folder: Path,
    settings: SaeSettings,
    generator: torch.Generator,
    metadata: dict[str, Any],
) -> dict[str, float]:
    """Train one autoencoder on raw states, save it in SAELens's format into `folder`, and tell how it did.

    Returns r2 (on the training tokens), l0 (mean number of active features) and dead_fraction (features that fire on none).
    """
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    n, d = states.shape
    scale = math.sqrt(d) / float(states.norm(dim=-1).mean())

    def batches() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(n, generator=generator)
            for start in range(0, n - n % settings.batch_size or n, settings.batch_size):
                yield scale * states[order[start : start + settings.batch_size]]

    config = TopKTrainingSAEConfig(
        d_in=d,
        d_sae=settings.width,
        k=settings.k,
        apply_b_dec_to_input=True,
        normalize_activations="none",
        rescale_acts_by_decoder_norm=True,
    )
    # SAELens initialises from the global generator only: fork it, and seed the fork from ours.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        sae = TopKTrainingSAE(config)
    with torch.no_grad():
        sae.b_dec.copy_(scale * states.mean(dim=0))
    steps = max(1, settings.n_samples // settings.batch_size)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=steps * settings.batch_size,
            train_batch_size_samples=settings.batch_size,
            lr=settings.lr,
            lr_end=settings.lr / 100,
            lr_decay_steps=steps // 5,
            dead_feature_window=max(1, steps // 4),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=batches(),
    )
    trainer.fit()
    length = sae.W_dec.detach().norm(dim=-1)
    save_topk(
        folder,
        w_enc=sae.W_enc.detach() * length,
        b_enc=sae.b_enc.detach() * length / scale,
        w_dec=sae.W_dec.detach() / length[:, None],
        b_dec=sae.b_dec.detach() / scale,
        k=settings.k,
        metadata=metadata | {"pooled_scale": scale, "training_samples": steps * settings.batch_size},
    )
    return quality(folder, states)


@torch.no_grad()
def quality(folder: Path, states: Float[torch.Tensor, "n d"]) -> dict[str, float]:
    """r2 = 1 − Σ‖r‖²/Σ‖h − h̄‖² (float64 sums), l0 and dead_fraction of a saved dictionary on some states."""
    from normprobe.saes.dictionary import load_dictionary

    dictionary = load_dictionary(folder)
    residual = total = active = 0.0
    fired = torch.zeros(dictionary.width, dtype=torch.bool)
    mean = states.double().mean(dim=0)
    for part in states.split(8192):
        z = dictionary.encode(part)
        residual += float((part - dictionary.decode(z)).double().square().sum())
        total += float((part.double() - mean).square().sum())
        active += float((z > 0).sum())
        fired |= (z > 0).any(dim=0)
    return {
        "r2": 1 - residual / total,
        "l0": active / len(states),
        "dead_fraction": 1 - float(fired.float().mean()),
    }
