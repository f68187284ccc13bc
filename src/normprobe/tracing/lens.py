"""What the logit lens reads off a layer, without all logits in memory: blocks of tokens and of the vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from normprobe.models.architectures import Anatomy
from normprobe.reading_plan import SMALL, slices


class RunningSoftmax:
    """The entropy of softmax(l), and −ln softmax(l) of an outcome, from logits l that come in blocks of outcomes.

    It keeps the largest logit m, Z = Σ eˡ⁻ᵐ and S = Σ eˡ⁻ᵐ·(l − m), all float32, and brings them to the new m where a
    block raises it. H = ln Z − S/Z; nothing cancels, since every l − m ≤ 0.
    """

    def __init__(self) -> None:
        self._top: torch.Tensor | None = None

    def add(self, logits: Float[torch.Tensor, "row outcome"]) -> None:
        """Take in a block, whose memory is used up. An outcome of logit −∞ is impossible and counts nothing."""
        top = logits.amax(dim=-1, keepdim=True)
        if self._top is None:
            self._total, self._weighted = torch.zeros_like(top), torch.zeros_like(top)
        else:
            top = torch.maximum(top, self._top)
            fall = self._top - top
            self._weighted = fall.exp() * (self._weighted + fall * self._total)
            self._total = fall.exp() * self._total
        self._top = top
        z = logits.sub_(top).clamp_(min=torch.finfo(logits.dtype).min)
        p = z.exp()
        self._total += p.sum(dim=-1, keepdim=True)
        self._weighted += p.mul_(z).sum(dim=-1, keepdim=True)

    def surprisal(self, logits: Float[torch.Tensor, " row"]) -> Float[torch.Tensor, " row"]:
        """−ln softmax(l) of one outcome in each row, given its logit."""
        assert self._top is not None
        return self._total.log()[:, 0] - (logits - self._top[:, 0])

    @property
    def entropy(self) -> Float[torch.Tensor, " row"]:
        """H(softmax(l)), nats."""
        return (self._total.log() - self._weighted / self._total)[:, 0]


@torch.no_grad()
def read_lens(
    anatomy: Anatomy,
    h: Float[torch.Tensor, "token d"],
    following: Int[torch.Tensor, " token"],
    scratch: int,
) -> tuple[Float[torch.Tensor, " token"], Float[torch.Tensor, " token"]]:
    """H(softmax(l)) and −ln softmax(l)[following] of the logits l = W_U·norm(h), in nats, holding `scratch` logits.

    At the last layer they are the entropy of the model's prediction of the *next* token, and the surprisal of that
    token if it is `following` (nostalgebraist 2020; Hale 2001).
    """
    normed = anatomy.normed(h)
    following = following.to(normed.device)
    if len(h) * anatomy.vocabulary <= SMALL * scratch:
        log_p = torch.log_softmax(anatomy.logits(normed, slice(None)), dim=-1)
        surprisal = -log_p.gather(-1, following[:, None])[:, 0]
        return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(dim=-1), surprisal
    entropy, surprisal = (torch.empty(len(h), device=normed.device) for _ in range(2))
    n_rows, n_entries = slices(scratch, anatomy.vocabulary)
    for start in range(0, len(h), n_rows):
        rows = slice(start, start + n_rows)
        running, ids = RunningSoftmax(), following[rows]
        chosen = torch.empty(len(ids), device=normed.device)
        for first in range(0, anatomy.vocabulary, n_entries):
            logits = anatomy.logits(normed[rows], slice(first, first + n_entries))
            place = (ids - first).clamp(0, logits.shape[1] - 1)
            here = logits.gather(1, place[:, None])[:, 0]
            chosen = torch.where(place == ids - first, here, chosen)
            running.add(logits)
        entropy[rows], surprisal[rows] = running.entropy, running.surprisal(chosen)
    return entropy, surprisal
