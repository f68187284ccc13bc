"""Train one TopK sparse autoencoder with SAELens's own classes, and hand it over reading raw activations.

TopK (arXiv 2406.04093) keeps the number of active features fixed, so their sum follows the size of the state and not
a threshold. One scale per layer, pooled over both modes, brings states to a mean norm of √d for the optimiser; a
scale per token would erase the norm from the code. After training the scale and the lengths of the decoder's atoms
are folded into the weights: the autoencoder that is saved takes raw activations, has unit atoms (THEOREM.md's
setting) and gives codes in activation units. So `sae_lens.SAE.load_from_disk` needs nothing but the folder.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int

from normprobe.saes.dictionary import Dictionary

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE

    from normprobe.config import SaeSettings

_CODES_AT_ONCE = 2**24


def generator_for(*key: object) -> torch.Generator:
    """A generator of its own for each key, so that a resumed run draws what an uninterrupted one would have drawn."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def train_sae(
    states: Float[torch.Tensor, "row d"],
    settings: SaeSettings,
    metadata: dict[str, Any],
    generator: torch.Generator,
    device: torch.device,
    on_batch: Callable[[int], object] = lambda _samples: None,
) -> TopKTrainingSAE:
    """A trained autoencoder of raw activations: h ≈ b_dec + Σ z_i d_i with ‖d_i‖ = 1 and k or fewer z_i > 0.

    `metadata` is saved with it, together with the scale used. Same states, generator and thread count: same weights.
    `on_batch` is called with the size of each batch after it.
    """
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    d = states.shape[1]
    scale = math.sqrt(d) / float(torch.linalg.vector_norm(states, dim=1, dtype=torch.float32).mean())
    # SAELens initialises from the global generator only: fork it, so that nothing outside sees the seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=d,
                d_sae=settings.width,
                k=settings.k,
                normalize_activations="none",
                rescale_acts_by_decoder_norm=True,
                decoder_init_norm=1.0,
                metadata=SAEMetadata(**metadata, activation_scale=scale, training_tokens=len(states)),
            )
        )
    sae.b_dec.data.copy_(scale * states.mean(dim=0, dtype=torch.float64))
    sae = sae.to(device)
    lr = 3e-3 * math.sqrt(1024 / settings.width)  # as in arXiv 2406.04093; to zero over the last fifth
    steps = max(1, settings.n_samples // settings.batch_size)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=steps * settings.batch_size,
            train_batch_size_samples=settings.batch_size,
            lr=lr,
            lr_end=lr,
            lr_decay_steps=steps // 5,
            device=str(device),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=iter(()),
    )
    batches = shuffled(len(states), settings.batch_size, generator)
    # `step` is the trainer's seam for outside coordinators; its own loop prints a bar of its own for every layer.
    for _ in range(steps):
        trainer.step(scale * states[next(batches)].to(device, torch.float32))
        trainer.n_training_steps += 1
        on_batch(settings.batch_size)
    trainer.set_final_sae_metadata()
    return fold(sae, scale)


def shuffled(n: int, size: int, generator: torch.Generator) -> Iterator[Int[torch.Tensor, " size"]]:
    """Endless batches of row numbers: every row once, in random order, before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:size]
        order = order[size:]


@torch.no_grad()
def fold(sae: TopKTrainingSAE, scale: float) -> TopKTrainingSAE:
    """Move the input's scale and the atoms' lengths into the weights, in place; z_i·d_i and the active features stay.

    Afterwards `rescale_acts_by_decoder_norm` is False: with unit atoms it would only multiply by a rounding error.
    """
    sae.fold_activation_norm_scaling_factor(scale)
    sae.fold_W_dec_norm()
    sae.cfg.rescale_acts_by_decoder_norm = False
    return sae


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
