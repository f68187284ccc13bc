"""Train TopK sparse autoencoders of raw activations: those of several layers together, or one with SAELens's trainer.

TopK (arXiv 2406.04093) keeps the number of active features fixed, so their sum follows the size of the state and not
a threshold. One scale per layer, pooled over both modes, brings states to a mean norm of √d for the optimiser; a
scale per token would erase the norm from the code. After training the scale and the lengths of the decoder's atoms
are folded into the weights: the autoencoder that is saved takes raw activations, has unit atoms (THEOREM.md's
setting) and gives codes in activation units. So `sae_lens.SAE.load_from_disk` needs nothing but the folder.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.runs.atomic import atomic_write
from normprobe.saes.dictionary import random_atoms, topk_sae
from normprobe.saes.topk_trainer import TopKTrainer, Weights

if TYPE_CHECKING:
    from sae_lens import TopKSAE, TopKTrainingSAE

    from normprobe.config import SaeSettings

CHECKPOINT_SECONDS = 60
OnStep = Callable[[int, Float[torch.Tensor, " sae"], Float[torch.Tensor, " sae"]], object]
"""What is called after each step: with its tokens × sites, R² on its batch, and the share of features that are dead."""


def generator_for(*key: object) -> torch.Generator:
    """A generator of its own for each key, so that a resumed run draws what an uninterrupted one would have drawn."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def train_together(
    read: Callable[[int], Float[torch.Tensor, "site row d"]],
    sizes: Sequence[int],
    settings: SaeSettings,
    metadata: Sequence[dict[str, Any]],
    generators: Sequence[torch.Generator],
    order: torch.Generator,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep = lambda _samples, _r2, _dead: None,
    agree: Callable[[int], int] = lambda done: done,
) -> list[TopKSAE]:
    """A trained autoencoder of each site, h ≈ b_dec + Σ z_i d_i with ‖d_i‖ = 1 and k or fewer z_i > 0.

    `read(i)` gives the states of chunk i, `sizes[i]` tokens of all sites; one chunk is held at a time, and read again
    in every epoch. All sites learn from the same tokens in the same `order`; `generators` draw their first atoms, the
    first chunk decides their scale. Same states, generators and thread count: same weights, also after an
    interruption, if a `checkpoint` was written (every minute, and read if it is there). `agree` makes of the steps that
    this process has done those after which states are read: of several processes that read together, the least.

    With `metadata` and `generators` of several seeds, all sites of the first, then all of the next, a site has as many
    autoencoders, which differ in their first atoms alone.

    Raises NormprobeError for a site whose states are all the same, or a loss that is no longer finite.
    """
    states = read(0)
    (n_sites, _, d), n_saes = states.shape, len(metadata)
    seeds = n_saes // n_sites
    scale = _scales(states, metadata).repeat(seeds)
    # Site by site: on a CPU a sum in another dtype copies what it sums.
    means = torch.stack([h.mean(dim=0, dtype=torch.float64) for h in states])
    variance = torch.stack([h.float().var(dim=0, correction=0).sum() for h in states]).repeat(seeds)
    variance *= scale.square()
    atoms = torch.stack([random_atoms(d, settings.width, generator) for generator in generators])
    bias = (scale[:, None] * means.repeat(seeds, 1)).float()
    weights = Weights(atoms.clone(), torch.zeros(n_saes, settings.width), atoms, bias).to(device)
    steps = n_steps_of(settings)
    bf16 = settings.encoder == "bfloat16"
    trainer = TopKTrainer(weights, settings.k, steps, learning_rate(settings.width), bf16=bf16)
    if checkpoint is not None and checkpoint.exists():
        advice = "delete it, and the training begins anew"
        kinds = (SafetensorError, KeyError, RuntimeError)
        with refusing_damage(f"the state of this training in {checkpoint}", advice, *kinds):
            trainer.load(load_file(checkpoint, device=str(device)))
    factor, written = scale.float().to(device).view(seeds, n_sites, 1, 1), time.monotonic()
    step, held, r2, read_after = 0, 0, torch.zeros(n_saes), agree(trainer.done)
    for number, n_steps in visits(sizes, settings, order):
        batches = shuffled(sizes[number], settings.batch_size, _child(order))
        for _ in range(n_steps):
            rows, step = next(batches), step + 1
            if step > read_after and held != number:
                del states
                states, held = read(number), number
            if step > trainer.done:  # else it was made before an interruption
                of_sites = states[:, rows].to(device, torch.float32)
                loss = trainer.step((factor * of_sites).flatten(0, 1)).cpu()
                _check(loss, metadata, trainer)
                r2 = 1 - loss / variance
                if checkpoint is not None and time.monotonic() - written > CHECKPOINT_SECONDS:
                    with atomic_write(checkpoint) as unfinished:
                        save_file(trainer.state(), unfinished)
                    written = time.monotonic()
            on_step(n_saes * len(rows), r2, trainer.dead.cpu())
    del trainer  # its moments would be held beside the finished copies
    unit, scales = weights.unit().to(torch.device("cpu")), scale.float()
    trained = [
        topk_sae(
            unit.encoder[i],
            unit.atoms[i],
            unit.encoder_bias[i] / scales[i],
            unit.bias[i] / scales[i],
            settings.k,
            {**metadata[i], "activation_scale": float(scale[i]), "training_tokens": sum(sizes)},
        )
        for i in range(n_saes)
    ]
    return [sae.to(device) for sae in trained]


def n_steps_of(settings: SaeSettings) -> int:
    return max(1, settings.n_samples // settings.batch_size)


def visits(sizes: Sequence[int], settings: SaeSettings, order: torch.Generator) -> Iterator[tuple[int, int]]:
    """Which chunk is trained on, and for how many steps: each once in an epoch, until all steps are made."""
    steps, batch = n_steps_of(settings), settings.batch_size
    left = steps if len(sizes) > 1 else 0
    if len(sizes) == 1:
        yield 0, steps
    numbers = list(range(len(sizes)))
    while left:
        for number in numbers:
            n_steps = min(max(1, sizes[number] // batch), left)
            if n_steps:
                yield number, n_steps
            left -= n_steps
        numbers = torch.randperm(len(sizes), generator=order).tolist()


def _child(generator: torch.Generator) -> torch.Generator:
    """A generator seeded by another one."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def _check(
    losses: Float[torch.Tensor, " sae"], metadata: Sequence[dict[str, Any]], trainer: TopKTrainer
) -> None:
    """Raises NormprobeError if a training has diverged."""
    if not bool(losses.isfinite().all()):
        diverged = int((~losses.isfinite()).nonzero()[0, 0])
        raise NormprobeError(
            f"expected a training that converges, got a loss of {float(losses[diverged])} in layer "
            f"{metadata[diverged].get('layer')} after {trainer.done - 1:,} of {trainer.steps:,} steps; give larger "
            "batches (--sae-batch-size)"
        )


def _scales(
    states: Float[torch.Tensor, "sae row d"], metadata: Sequence[dict[str, Any]]
) -> Float[torch.Tensor, " sae"]:
    """What brings each site's states to a mean norm of √d. Raises NormprobeError for a site that never changes."""
    for of_site, described in zip(states, metadata, strict=False):  # of several seeds, the first
        if bool((of_site == of_site[0]).all()):
            raise NormprobeError(
                f"expected states that differ, got the same at all {len(of_site):,} tokens in layer "
                f"{described.get('layer')}; leave the layer out (--layers)"
            )
    norms = torch.stack([torch.linalg.vector_norm(h, dim=1, dtype=torch.float32) for h in states])
    norms = norms.mean(dim=1, dtype=torch.float64)
    return math.sqrt(states.shape[2]) / norms


def learning_rate(width: int) -> float:
    """As in arXiv 2406.04093: it falls with the root of the width."""
    return 3e-3 * math.sqrt(1024 / width)


def train_sae(
    states: Float[torch.Tensor, "row d"],
    settings: SaeSettings,
    metadata: dict[str, Any],
    generator: torch.Generator,
    device: torch.device,
    on_batch: Callable[[int], object] = lambda _samples: None,
) -> TopKTrainingSAE:
    """As `train_together`, one site by SAELens's own trainer, which is the reference.

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
    lr = learning_rate(settings.width)  # to zero over the last fifth
    steps = n_steps_of(settings)
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
