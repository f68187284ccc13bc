"""Train TopK autoencoders of many sites together: one step reads a batch of every site's states.

A step costs the encoder's matrix product and little more, since of `width` features only k are active in a row:
decoding and every gradient are weighted sums of few rows (`active_rows`). The objective, the auxiliary loss that
revives dead features, Adam, clipping and learning rate are those of SAELens's TopK trainer, which stays as the
reference: from the same weights and batches come the same weights (on a GPU up to TF32, in which the encoder reads).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch.optim.adam import adam

from normprobe.saes.active_rows import fastest

CLIP = 1.0
"""Largest norm of one autoencoder's gradient, as in SAELens."""
DEAD_AFTER = 1000
"""Steps without firing that make a feature dead, as in SAELens."""


@contextmanager
def _fast_products(device: torch.device, bf16: bool) -> Iterator[None]:
    """Inside, a GPU's products are in TF32: several times as fast, at the same loss (benchmarks/sae_training.py).

    bf16: operands are bfloat16 numbers already, so that a processor's own instructions for them lose nothing.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    elif bf16:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass
class Weights:
    """Autoencoders of equal shape: x̂ = bias + Σ_i c_i·atoms_i with c = encoder·(x − bias) + encoder_bias.

    The sum is over the k features whose part ‖c_i·atoms_i‖ is largest, where c_i > 0. In training the lengths of atoms
    drift; `unit` gives the same autoencoders with atoms of length 1.
    """

    encoder: Float[torch.Tensor, "sae feature d"]
    encoder_bias: Float[torch.Tensor, "sae feature"]
    atoms: Float[torch.Tensor, "sae feature d"]
    bias: Float[torch.Tensor, "sae d"]

    def tensors(self) -> dict[str, torch.Tensor]:
        return vars(self)

    def unit(self) -> Weights:
        """The same autoencoders with atoms of length 1."""
        lengths = torch.linalg.vector_norm(self.atoms, dim=-1)
        encoder, atoms = self.encoder * lengths[..., None], self.atoms / lengths[..., None]
        return Weights(encoder, self.encoder_bias * lengths, atoms, self.bias)

    def to(self, device: torch.device) -> Weights:
        return Weights(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


class TopKTrainer:
    """Adam on the squared error of several TopK autoencoders, for a fixed number of steps.

    The learning rate falls to zero over the last fifth of the steps. Weights are trained in place, in float32.
    kernels: the module of its sums over active features, `active_rows` or another with its functions (the fastest).
    bf16: the encoder reads states and weights rounded to bfloat16 (its sums stay in float32).
    """

    def __init__(
        self,
        weights: Weights,
        k: int,
        steps: int,
        lr: float,
        kernels: ModuleType | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        self.weights, self.k, self.steps, self.lr, self.bf16 = weights, k, steps, lr, bf16
        self.done = 0
        zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.tensors().items()}
        self.mean, self.square = Weights(**zeros), Weights(**{name: t.clone() for name, t in zeros.items()})
        """Adam's moments of the gradients."""
        self.silent = torch.zeros(weights.encoder_bias.shape, dtype=torch.int64, device=weights.bias.device)
        """Steps since each feature fired, [sae, feature]."""
        self._kernels = kernels or fastest(weights.bias.device)
        self._parts: torch.Tensor | None = None

    @property
    def dead(self) -> Float[torch.Tensor, " sae"]:
        """The share of features that have not fired for long."""
        return (self.silent > DEAD_AFTER).float().mean(dim=1)

    @torch.no_grad()
    def step(self, x: Float[torch.Tensor, "sae row d"]) -> Float[torch.Tensor, " sae"]:
        """One step on these states. Returns the mean squared error of each autoencoder before it, summed over d."""
        w, (n_saes, n_rows, _) = self.weights, x.shape
        centred = x - w.bias[:, None]
        codes, feature = self._encode(centred)
        rows = centred.flatten(0, 1)
        residual, products = self._kernels.decoded(codes, feature, w.atoms.flatten(0, 1), rows)
        # Of the mean of ‖residual‖² over rows.
        d_codes = (2 / n_rows * products).masked_fill_(codes <= 0, 0)
        weighted = [(2 / n_rows * codes, residual), (d_codes, rows)]
        d_atoms, d_encoder = self._kernels.summed(feature, w.encoder_bias.numel(), weighted)
        # Of the ways to add up, the one that keeps an order on a GPU, so that a training can be repeated there.
        totals = torch.zeros_like(w.encoder_bias).flatten()
        totals.index_put_((feature.flatten(),), d_codes.flatten(), accumulate=True)
        grads = Weights(
            encoder=d_encoder.view_as(w.encoder),
            encoder_bias=totals.view_as(w.encoder_bias),
            atoms=d_atoms.view_as(w.atoms),
            bias=2 / n_rows * residual.view(x.shape).sum(dim=1),
        )
        dead = self.silent > DEAD_AFTER
        for i in dead.any(dim=1).nonzero()[:, 0].tolist():
            self._revive(grads, i, centred[i], residual.view(x.shape)[i], dead[i].nonzero()[:, 0])
        # The reconstruction adds the bias, and the encoder reads x − bias.
        grads.bias -= torch.bmm(grads.encoder_bias[:, None], w.encoder)[:, 0]
        self._update(grads)
        self.silent += 1
        fired = torch.zeros_like(self.silent).flatten()
        fired.index_add_(0, feature.flatten(), (codes > 0).flatten().long())
        self.silent[fired.view_as(self.silent) > 0] = 0
        squares = torch.linalg.vector_norm(residual, dim=-1).square_()
        return squares.view(n_saes, n_rows).mean(dim=1)

    def _encode(
        self, centred: Float[torch.Tensor, "sae row d"]
    ) -> tuple[Float[torch.Tensor, "sae_row k"], Int[torch.Tensor, "sae_row k"]]:
        """The codes of each row's k active features, not below 0, and whose they are, counted through all autoencoders.

        Codes of full width are held for one autoencoder at a time.
        """
        w, width = self.weights, self.weights.atoms.shape[1]
        if self._parts is None or self._parts.shape[0] != centred.shape[1]:
            self._parts = centred.new_empty(centred.shape[1], width)
        lengths = torch.linalg.vector_norm(w.atoms, dim=-1)
        found = []
        for sae, rows in enumerate(centred):
            encoder, bias = w.encoder[sae] * lengths[sae, :, None], w.encoder_bias[sae] * lengths[sae]
            if self.bf16:
                rows, encoder = rows.bfloat16().float(), encoder.bfloat16().float()
            with _fast_products(rows.device, self.bf16):
                largest, feature = self._kernels.largest(rows, encoder, bias, self.k, self._parts)
            found.append((largest.relu_() / lengths[sae, feature], feature + sae * width))
        codes, feature = (torch.cat(tensors) for tensors in zip(*found, strict=True))
        return codes, feature

    def _revive(
        self,
        grads: Weights,
        sae: int,
        centred: Float[torch.Tensor, "row d"],
        residual: Float[torch.Tensor, "row d"],
        index: Int[torch.Tensor, " dead"],
    ) -> None:
        """Add the gradient of AuxK (arXiv 2406.04093, A.2): the d/2 most active of the dead predict what is missing."""
        w, n_rows, k_aux = self.weights, len(centred), centred.shape[1] // 2
        scale, k_aux = min(len(index) / k_aux, 1.0), min(k_aux, len(index))
        encoder, atoms = w.encoder[sae, index], w.atoms[sae, index]
        codes = torch.addmm(w.encoder_bias[sae, index], centred, encoder.T)
        top = (codes * torch.linalg.vector_norm(atoms, dim=-1)).topk(k_aux, dim=-1, sorted=False).indices
        codes = torch.zeros_like(codes).scatter_(-1, top, codes.gather(-1, top))
        error = 2 * scale / n_rows * (codes @ atoms + residual)  # what is missing is −residual
        d_codes = (error @ atoms.T).mul_(codes != 0)
        grads.atoms[sae, index] += codes.T @ error
        grads.encoder[sae, index] += d_codes.T @ centred
        grads.encoder_bias[sae, index] += d_codes.sum(dim=0)

    def _update(self, grads: Weights) -> None:
        """Adam, on gradients clipped autoencoder by autoencoder: it divides them by what it is given as their scale."""
        squares = [
            torch.linalg.vector_norm(grad.flatten(1), dim=1).square() for grad in grads.tensors().values()
        ]
        scale = ((torch.stack(squares).sum(dim=0).sqrt() + 1e-6) / CLIP).clamp_(min=1)
        lr, everything = self.lr * self._decay(), (self.weights, grads, self.mean, self.square)
        for i in range(len(scale)):
            of_one = [[tensor[i] for tensor in w.tensors().values()] for w in everything]
            steps = [torch.full((), float(self.done), device=scale.device) for _ in of_one[0]]
            adam(
                *of_one,
                max_exp_avg_sqs=[],
                state_steps=steps,
                fused=True,
                grad_scale=scale[i],
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
        self.done += 1

    def _decay(self) -> float:
        last = self.steps // 5
        return min(1.0, (self.steps - self.done) / last) if last else 1.0

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that a later `load` needs to go on as if nothing had happened."""
        moments = {"mean": self.mean, "square": self.square}
        return (
            self.weights.tensors()
            | {
                f"{kind}.{name}": t
                for kind, of_kind in moments.items()
                for name, t in of_kind.tensors().items()
            }
            | {"silent": self.silent, "done": torch.tensor(self.done)}
        )

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.done = int(state["done"])
