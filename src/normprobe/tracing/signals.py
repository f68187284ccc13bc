"""The signals of one token's state, as pure functions of tensors. All compute in float32 or better; entropies are in
nats. What needs more than the state stands in `lens` (output entropy, surprisal) and `attention`.

The paper (arXiv 2606.06188) compares them without giving formulas. The three forms of hidden entropy are the ways in
which "spread of the state" can be read, and they differ: only the first depends on the state's scale.
"""

import torch
from jaxtyping import Float


def norm(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token"]:
    """‖h‖₂ = √Σᵢ hᵢ², accumulated in float32 whatever the state's dtype (arXiv 2606.06188: the tell-tale norm)."""
    return torch.linalg.vector_norm(h.float(), dim=-1)


def entropy_softmax(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token"]:
    """H(softmax(h)), in [0, log d]: the coordinates of the state read as logits.

    It falls with ‖h‖ whatever the direction, as d/dc H(softmax(c·h)) = −c·Var(h) under softmax(c·h): the norm in
    disguise.
    """
    return _entropy(torch.softmax(h.float(), dim=-1))


def entropy_rms(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token"]:
    """H(softmax(√d·h/‖h‖)), in [0, log d]: the softmax form after RMSNorm without weight, so free of scale.

    A state of norm zero has no direction: log d.
    """
    return _entropy(torch.softmax(h.shape[-1] ** 0.5 * _direction(h), dim=-1))


def entropy_energy(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token"]:
    """H(p) with pᵢ = hᵢ²/‖h‖², in [0, log d]: how many coordinates share the energy (its exponential is the effective
    number; the participation ratio is the same with Rényi's order 2). Free of scale. A state of norm zero: 0.
    """
    return _entropy(_direction(h).square())


def _entropy(p: Float[torch.Tensor, "*token outcome"]) -> Float[torch.Tensor, "*token"]:
    """−Σ p·ln p with 0·ln 0 = 0."""
    # torch.special.entr computes the same, 2.5 times slower on a CPU.
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)


def _direction(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token d"]:
    return torch.nn.functional.normalize(h.float(), dim=-1, eps=torch.finfo(torch.float32).tiny)
