"""Muon in float32, all matrices of one shape at once.

PyTorch's own computes in bfloat16, matrix by matrix: on a processor without it that is half of the time of a step of
tiny-thinker.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Muon(torch.optim.Muon):
    """As `torch.optim.Muon` in its default form, with the same state and the update in float32."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters that have a gradient. Raises ValueError if given a closure."""
        if closure is not None:
            raise ValueError("expected no closure: gradients are computed before the step")
        for group in self.param_groups:
            by_shape = defaultdict[torch.Size, list[nn.Parameter]](list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = orthogonalise(
                    torch.stack([self._momentum(parameter, group).float() for parameter in parameters]),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                scale = group["lr"] * max(1, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _momentum(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The gradient with momentum, Nesterov's."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        past = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(past, group["momentum"])


def orthogonalise(
    matrices: Float[Tensor, "matrix row column"],
    coefficients: tuple[float, float, float],
    n_steps: int,
    eps: float,
) -> Float[Tensor, "matrix row column"]:
    """Bring all singular values near 1 by Newton and Schulz's iteration (kellerjordan.github.io/posts/muon)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = rearrange(matrices, "matrix row column -> matrix column row") if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    a, b, c = coefficients
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
