"""What training autoencoders of many layers costs, side by side with peers: `python benchmarks/sae_training.py --help`.

The same sparse mixtures, Adam, learning rate and number of steps for each: `normprobe`, all layers in one step
(with Numba where it is installed; its encoder also in bfloat16, which is faster where the processor multiplies
that); SAELens's TopK trainer as its MultiSAETrainer steps it, one layer after another; sparsify's and
dictionary_learning's, where they are installed (`pip install --no-deps eai-sparsify dictionary-learning natsort
simple-parsing docstring-parser schedulefree`). Two limits are shown with them: `encoder` is the product of states
and encoder of every layer alone, which no TopK autoencoder does without, and `Adam` reads and writes the weights
and both of its moments once. Trainers take turns, a round of steps each, in one process and on one thread; the
clock is CPU time. On a GPU it is synchronised wall time, and products are in TF32 (sparsify's encoder is in
bfloat16 there, as it always is). The loss is the share of variance that is left on held-out states.
"""

# The peers are not ours to install.
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from reporting import measured_on, parser, publish, table

from normprobe.console import run_main
from normprobe.saes import active_rows
from normprobe.saes.dictionary import random_atoms
from normprobe.saes.topk_trainer import TopKTrainer, Weights
from normprobe.saes.training import learning_rate

Step = Callable[[Float[torch.Tensor, "sae row d"]], object]
Reconstruct = Callable[[Float[torch.Tensor, "sae row d"]], Float[torch.Tensor, "sae row d"]]


class TrainingSize(NamedTuple):
    """How large the work is: autoencoders, their width, k, rows of a batch, and the steps of a whole training."""

    saes: int
    d: int
    width: int
    k: int
    rows: int
    steps: int

    @property
    def lr(self) -> float:
        return learning_rate(self.width)


def mixtures(work: TrainingSize, device: str) -> Callable[[], Float[torch.Tensor, "sae row d"]]:
    """Batches of sparse mixtures of twice as many directions as there are features, at a mean norm of √d."""
    generator = torch.Generator(device).manual_seed(0)
    n, active = 2 * work.width, work.k
    atoms = torch.stack([random_atoms(work.d, n, generator) for _ in range(work.saes)])

    def batch() -> Float[torch.Tensor, "sae row d"]:
        index = torch.randint(n, (work.rows, active), generator=generator, device=device)
        parts = torch.rand(work.rows, active, generator=generator, device=device)
        found = [
            torch.nn.functional.embedding_bag(index, a, per_sample_weights=parts, mode="sum") for a in atoms
        ]
        states = torch.stack(found)
        states += 0.01 * torch.randn(states.shape, generator=generator, device=device)
        return math.sqrt(work.d) * states / states.norm(dim=-1).mean()

    return batch


def ours(
    work: TrainingSize, weights: Weights, kernels: ModuleType | None = None, *, bf16: bool = False
) -> tuple[Step, Reconstruct]:
    trainer = TopKTrainer(weights, work.k, work.steps, work.lr, kernels, bf16=bf16)

    def reconstruct(x: Float[torch.Tensor, "sae row d"]) -> Float[torch.Tensor, "sae row d"]:
        unit = weights.unit()
        parts = torch.baddbmm(unit.encoder_bias[:, None], x - unit.bias[:, None], unit.encoder.mT)
        top = parts.topk(work.k)
        z = torch.zeros_like(parts).scatter(-1, top.indices, top.values.relu())
        return torch.baddbmm(unit.bias[:, None], z, unit.atoms)

    return trainer.step, reconstruct


def saelens(work: TrainingSize, weights: Weights) -> tuple[Step, Reconstruct]:
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig

    def trainer(i: int) -> SAETrainer[Any, Any]:
        device = str(weights.bias.device)
        config = TopKTrainingSAEConfig(d_in=work.d, d_sae=work.width, k=work.k, device=device)
        sae = TopKTrainingSAE(config)
        sae.W_enc.data, sae.W_dec.data = weights.encoder[i].T.contiguous(), weights.atoms[i].clone()
        settings = SAETrainerConfig(
            total_training_samples=work.steps * work.rows,
            train_batch_size_samples=work.rows,
            lr=work.lr,
            lr_end=work.lr,
            lr_decay_steps=work.steps // 5,
            device=device,
            logger=LoggingConfig(log_to_wandb=False),
        )
        return SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))

    trainers = [trainer(i) for i in range(work.saes)]

    def step(x: Float[torch.Tensor, "sae row d"]) -> None:
        for of_layer, one in zip(x, trainers, strict=True):
            one.step(of_layer)
            one.n_training_steps += 1

    return step, lambda x: torch.stack([t.sae(h) for h, t in zip(x, trainers, strict=True)])


def sparsify(work: TrainingSize, weights: Weights) -> tuple[Step, Reconstruct]:
    """Its loop over layers, with the loss of its autoencoder (fraction of variance unexplained) and its Adam."""
    if weights.bias.device.type == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its switch, read when it is imported
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    config = SparseCoderConfig(num_latents=work.width, k=work.k)
    coders = [SparseCoder(work.d, config, device=weights.bias.device) for _ in range(work.saes)]
    for i, coder in enumerate(coders):
        coder.encoder.weight.data, coder.W_dec.data = weights.encoder[i].clone(), weights.atoms[i].clone()
    optimizer = torch.optim.Adam([{"params": coder.parameters()} for coder in coders], lr=work.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1.0, 5 * (1 - n / work.steps)))

    def step(x: Float[torch.Tensor, "sae row d"]) -> None:
        for h, coder in zip(x, coders, strict=True):
            coder.set_decoder_norm_to_unit_norm()
            coder(h).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    return step, lambda x: torch.stack([coder(h).sae_out for h, coder in zip(x, coders, strict=True)])


def dictionary_learning(work: TrainingSize, weights: Weights) -> tuple[Step, Reconstruct]:
    # The package itself imports nnsight, which its trainers do not use.
    spec = importlib.util.find_spec("dictionary_learning")
    assert spec is not None
    package = ModuleType("dictionary_learning")
    package.__path__ = spec.submodule_search_locations or []
    sys.modules["dictionary_learning"] = package
    from dictionary_learning.trainers.top_k import TopKTrainer as Trainer

    def trainer(i: int) -> Any:
        one = Trainer(
            steps=work.steps,
            activation_dim=work.d,
            dict_size=work.width,
            k=work.k,
            layer=i,
            lm_name="none",
            lr=work.lr,
            warmup_steps=0,
            decay_start=4 * work.steps // 5,
            device=str(weights.bias.device),
        )
        one.ae.encoder.weight.data = weights.encoder[i].clone()
        one.ae.decoder.weight.data = weights.atoms[i].T.contiguous()
        return one

    trainers, done = [trainer(i) for i in range(work.saes)], iter(range(work.steps + 1))

    def step(x: Float[torch.Tensor, "sae row d"]) -> None:
        number = next(done)
        for h, one in zip(x, trainers, strict=True):
            one.update(number, h)

    return step, lambda x: torch.stack([t.ae(h) for h, t in zip(x, trainers, strict=True)])


PLAIN = "normprobe, plain torch"
BF16 = "normprobe, encoder in bfloat16"
TRAINERS = {
    "normprobe": ours,
    PLAIN: partial(ours, kernels=active_rows),
    BF16: partial(ours, bf16=True),
    "SAELens": saelens,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
}
PACKAGES = {"SAELens": "sae_lens", "sparsify": "sparsify", "dictionary_learning": "dictionary_learning"}


def measure(work: TrainingSize, rounds: int, device: str) -> dict[str, dict[str, Any]]:
    """Seconds of every round, and the loss after all of them, by trainer; the encoder's product has no loss."""
    generator = torch.Generator(device).manual_seed(1)
    atoms = torch.stack([random_atoms(work.d, work.width, generator) for _ in range(work.saes)])
    batch, steps = mixtures(work, device), {}
    learned: dict[str, Reconstruct] = {}
    for name, make in TRAINERS.items():
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            continue
        if name == PLAIN and active_rows.fastest(torch.device(device)) is active_rows:
            continue  # it is what `normprobe` takes, too
        if name == BF16 and device != "cpu":
            continue  # products are in TF32 there
        zeros = [torch.zeros(work.saes, n, device=device) for n in (work.width, work.d)]
        steps[name], learned[name] = make(work, Weights(atoms.clone(), zeros[0], atoms.clone(), zeros[1]))
    products = torch.empty(work.saes, work.rows, work.width, device=device)
    steps["encoder"] = lambda x: torch.bmm(x, atoms.mT, out=products)
    moments = torch.zeros(2, *atoms.shape, device=device)

    def read_and_write(_: object) -> None:
        for _ in range(3):
            moments.mul_(1.0)

    steps["Adam"] = read_and_write
    first = batch()
    for step in steps.values():  # what is compiled is compiled now
        step(first)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        batches = [batch() for _ in range(work.steps // rounds)]
        for name in np.random.default_rng(number).permutation(list(steps)):
            begin = _clock(device)
            for x in batches:
                steps[name](x)
            seconds[name].append((_clock(device) - begin) / len(batches))
    test = batch()
    total = (test - test.mean(dim=1, keepdim=True)).square().sum()
    found: dict[str, dict[str, Any]] = {name: {"seconds": values} for name, values in seconds.items()}
    for name, reconstruct in learned.items():
        with torch.no_grad():
            found[name]["loss"] = float((test - reconstruct(test)).square().sum() / total)
    return found


def _clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu")
    for name, value in (("saes", 8), ("d", 256), ("width", 2048), ("k", 32), ("rows", 1024), ("steps", 100)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args(argv)
    torch.set_num_threads(1)
    if given.device != "cpu":
        torch.set_float32_matmul_precision("high")  # of all trainers: ours and sparsify would take it anyway
    work = TrainingSize(given.saes, given.d, given.width, given.k, given.rows, given.steps)
    found = measure(work, given.rounds, given.device)
    measured = {"precision": torch.get_float32_matmul_precision(), "shape": work._asdict(), "found": found}
    result = {**measured_on(given.device), **measured}
    publish(result, as_markdown(result), given.out)
    return 0


def as_markdown(result: dict[str, Any]) -> str:
    """A section with a table: a row per trainer."""
    shape, found = result["shape"], result["found"]
    of_ours = np.array(found["normprobe"]["seconds"])
    rows = []
    for name, row in found.items():
        ratios = np.array(row["seconds"]) / of_ours
        rows.append(
            [
                name,
                f"{shape['saes'] * shape['rows'] / np.median(row['seconds']):,.0f}",
                f"{np.median(ratios):.2f}",
                f"{ratios.min():.2f}–{ratios.max():.2f}",
                f"{row['loss']:.4f}" if "loss" in row else "",
            ]
        )
    size = ", ".join(f"{name} {value:,}" for name, value in shape.items())
    tf32 = "; products in TF32" if result.get("precision") == "high" else ""
    head = (
        f"## Training autoencoders on {result['hardware']}\n\n{result['date']}; torch {result['torch']}; {size}; "
        f"clock: {result['clock']}{tf32}.\n\n"
    )
    columns = ["trainer", "rows × layers/s", "time, normprobe = 1", "over rounds", "variance left"]
    return head + table(columns, rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
