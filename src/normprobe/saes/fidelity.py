"""How faithfully a dictionary renders states, in the field's terms: sums over a stream of states, by mode.

The names are those of SAEBench's evaluation "core" (arXiv 2503.09532), which itself needs a data set, a TransformerLens
model and numpy 1; `normprobe.runs.dictionary_files` tells what each means here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int

from normprobe.saes.activations import PAIRED
from normprobe.saes.dictionary import Dictionary

_CODES_AT_ONCE = 2**22
_OF_TOKENS = ("mse", "l0", "l1", "cossim", "l2_norm_in", "l2_norm_out", "l2_ratio")
"""What is averaged over tokens: ‖h − ĥ‖², active features, Σz, cos(h, ĥ), ‖h‖, ‖ĥ‖ and ‖ĥ‖/‖h‖."""


@dataclass
class Fidelity:
    """Sums over the states of each mode of `PAIRED` that one dictionary has read."""

    dictionary: Dictionary
    n: Int[torch.Tensor, " mode"] = field(init=False)

    def __post_init__(self) -> None:
        width, d = self.dictionary.atoms.shape
        self.n = torch.zeros(len(PAIRED), dtype=torch.int64)
        self._h = torch.zeros(len(PAIRED), d, dtype=torch.float64)
        self._squares = torch.zeros(len(PAIRED), 3, dtype=torch.float64)  # ‖h‖², ‖ĥ‖² and ⟨h, ĥ⟩
        self._of_tokens = torch.zeros(len(PAIRED), len(_OF_TOKENS), dtype=torch.float64)
        self._fired = torch.zeros(len(PAIRED), width, dtype=torch.int64)

    @torch.no_grad()
    def read(
        self, h: Float[torch.Tensor, "n d"], mode: Int[torch.Tensor, " n"]
    ) -> Float[torch.Tensor, "n d"]:
        """The reconstruction ĥ of each state. Those whose mode is not −1 are added to the sums."""
        parts = max(1, _CODES_AT_ONCE // self.dictionary.width)
        return torch.cat(
            [
                self._read(states, modes)
                for states, modes in zip(h.split(parts), mode.split(parts), strict=True)
            ]
        )

    def _read(
        self, h: Float[torch.Tensor, "n d"], mode: Int[torch.Tensor, " n"]
    ) -> Float[torch.Tensor, "n d"]:
        z = self.dictionary.encode(h)
        predicted = self.dictionary.reconstruct(z)
        for number in range(len(PAIRED)):
            chosen = (mode == number).nonzero()[:, 0].to(h.device)
            self._add(number, h[chosen], z[chosen], predicted[chosen])
        return predicted

    def _add(
        self,
        mode: int,
        h: Float[torch.Tensor, "n d"],
        z: Float[torch.Tensor, "n feature"],
        predicted: Float[torch.Tensor, "n d"],
    ) -> None:
        h_sq, x_sq, hx = h.square().sum(dim=1), predicted.square().sum(dim=1), (h * predicted).sum(dim=1)
        norm_in, norm_out = h_sq.sqrt(), x_sq.sqrt()
        of_tokens = [
            (h - predicted).square().sum(dim=1),
            (z > 0).sum(dim=1).float(),
            z.sum(dim=1),
            hx / (norm_in * norm_out),
            norm_in,
            norm_out,
            norm_out / norm_in,
        ]
        self.n[mode] += len(h)
        self._h[mode] += h.sum(dim=0, dtype=torch.float64).cpu()
        self._squares[mode] += torch.stack([h_sq, x_sq, hx]).sum(dim=1, dtype=torch.float64).cpu()
        self._of_tokens[mode] += torch.stack(of_tokens).sum(dim=1, dtype=torch.float64).cpu()
        self._fired[mode] += (z > 0).sum(dim=0).cpu()

    def measures(self, mode: int) -> dict[str, float]:
        """The metrics of one mode by name; NaN where no state was added.

        r2 = 1 − Σ‖h − ĥ‖²/Σ‖h − h̄‖², h̄ the mean of the mode's states: SAEBench calls it explained_variance, and
        releases of it compute other numbers under that name.
        """
        n = float(self.n[mode]) or float("nan")
        mean_of = {
            name: float(total) / n for name, total in zip(_OF_TOKENS, self._of_tokens[mode], strict=True)
        }
        h_sq, x_sq, hx = (float(total) / n for total in self._squares[mode])
        variance = h_sq - float((self._h[mode] / n).square().sum())
        density = self._fired[mode] / n
        return {
            "r2": 1 - mean_of["mse"] / variance,
            **mean_of,
            "relative_reconstruction_bias": x_sq / hx,
            "frac_alive": float((density > 0).double().mean()),
            "freq_over_1_percent": float((density > 0.01).double().mean()),
            "freq_over_10_percent": float((density > 0.1).double().mean()),
        }
