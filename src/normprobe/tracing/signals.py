"""The signals of one token, as pure functions of tensors. All compute in float32 or better; entropies are in nats.

The paper (arXiv 2606.06188) compares them without giving formulas. The three forms of hidden entropy are the ways in
which "spread of the state" can be read, and they differ: only the first depends on the state's scale.
"""

import torch
from jaxtyping import Float, Int


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


def output_entropy(logits: Float[torch.Tensor, "*token vocab"]) -> Float[torch.Tensor, "*token"]:
    """H(softmax(W_U·norm(h))), in [0, log vocab], from the logits of the logit lens (nostalgebraist 2020): a layer's
    state sent through the final norm and the unembedding. At the last layer it is the entropy of the model's own
    prediction of the *next* token.
    """
    return _entropy(torch.softmax(logits.float(), dim=-1))


def attention_entropy(
    weights: Float[torch.Tensor, "*batch head query key"],
) -> Float[torch.Tensor, "*batch query"]:
    """(1/heads)·Σ_head −Σ_key a·ln a, in [0, log(query + 1)] under a causal mask: how wide attention is spread.

    `weights` are attention probabilities. Fused kernels never form them, so the model must run with eager attention.
    """
    return _entropy(weights.float()).mean(dim=-2)


def surprisal(
    logits: Float[torch.Tensor, "*token vocab"], following: Int[torch.Tensor, "*token"]
) -> Float[torch.Tensor, "*token"]:
    """−ln p(following token | its predecessors), ≥ 0, from the logits at the position *before* it (Hale 2001)."""
    return -torch.log_softmax(logits.float(), dim=-1).gather(-1, following[..., None])[..., 0]


def _entropy(p: Float[torch.Tensor, "*token outcome"]) -> Float[torch.Tensor, "*token"]:
    """−Σ p·ln p with 0·ln 0 = 0."""
    # torch.special.entr computes the same, 2.5 times slower on a CPU.
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)


def _direction(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token d"]:
    return torch.nn.functional.normalize(h.float(), dim=-1, eps=torch.finfo(torch.float32).tiny)
