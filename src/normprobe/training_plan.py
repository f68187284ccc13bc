"""What training the dictionaries of a study takes, from shapes alone: operations, memory, hours, and how many GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT = 4
GPU_BYTES = 80e9
GPU_FLOPS = 495e12
GPU_BANDWIDTH = 3.35e12
"""An H100 SXM by its data sheet: memory, TF32 operations and bytes moved a second. Training took 1.5 times what they
give, where it was measured (benchmarks/results/sae-training-h100.md)."""


@dataclass(frozen=True)
class TrainingPlan:
    """TopK autoencoders of `layers` sites, trained together by `normprobe.saes.topk_trainer`.

    In float32; on a GPU the encoder's product is in TF32.
    tokens: shown to each in training. batch: tokens of a step. model_bytes: weights of the model that is read.
    state_bytes: sampled states that may be held at once. itemsize: bytes of a number of a state.
    """

    layers: int
    d: int
    width: int
    k: int
    tokens: int
    batch: int
    model_bytes: int
    state_bytes: int
    itemsize: int

    @property
    def flop(self) -> float:
        """The encoder's product, and four sums over k rows: decoding, and the gradients of codes and of two tables."""
        return 2.0 * self.layers * self.tokens * self.d * (self.width + 4 * self.k)

    @property
    def traffic(self) -> float:
        """Bytes moved: passes over the d × width numbers of a table (Adam's 16, the encoder's 3, gradients 4), and the
        k atoms of each token, which are read twice."""
        steps = max(1, self.tokens // self.batch)
        rows = 23.0 * steps * self.width + 2.0 * self.tokens * self.k
        return rows * self.layers * self.d * FLOAT

    @property
    def layer_bytes(self) -> int:
        """Encoder and atoms, their gradients and Adam's two moments, and one table of what a step holds besides."""
        return 9 * self.d * self.width * FLOAT

    @property
    def chunk_tokens(self) -> int:
        """Tokens whose states are held at once, of all layers."""
        return max(1, self.state_bytes // (self.layers * self.d * self.itemsize))

    @property
    def layers_per_gpu(self) -> int:
        """How many layers fit on a GPU that holds the model, too; 0 if none."""
        codes = self.batch * self.width * FLOAT
        return max(0, int((GPU_BYTES - self.model_bytes - codes) // self.layer_bytes))

    @property
    def note(self) -> str:
        """The plan in words."""
        seconds = self.flop / GPU_FLOPS + self.traffic / GPU_BANDWIDTH
        least = f"{seconds / 3600:.1f} h" if seconds > 1800 else f"{max(1, seconds):.0f} s"
        chunks = math.ceil(self.tokens / self.chunk_tokens)
        fits = self.layers_per_gpu
        gpus = (
            "not one fits together with the model"
            if fits == 0
            else "they fit on one"
            if fits >= self.layers
            else f"{fits} fit on one, so {math.ceil(self.layers / fits)} GPUs or as many runs with --layers"
        )
        mixing = (
            "All states are held at once."
            if chunks == 1
            else f"States come in {chunks:,} chunks of {self.chunk_tokens:,} tokens or fewer: two tokens of a batch "
            f"are of one problem at most about {chunks:,} times as often as if all were held."
        )
        return (
            f"Dictionaries: {self.layers} layers of {self.width:,} features, k {self.k}, {self.tokens:,} tokens: "
            f"{self.flop:.1e} FLOP and {self.traffic:.1e} bytes moved, at least {least} on a GPU of "
            f"{GPU_FLOPS / 1e12:.0f} TFLOP/s (TF32) and {GPU_BANDWIDTH / 1e12:.2f} TB/s; "
            f"{self.layer_bytes / 1e9:.2g} GB a layer, {self.layers * self.layer_bytes / 1e9:.3g} GB in all; with "
            f"{GPU_BYTES / 1e9:.0f} GB {gpus}. {mixing} "
            f"--cache would write up to {self.tokens * self.layers * self.d * self.itemsize / 1e9:.3g} GB a network."
        )
