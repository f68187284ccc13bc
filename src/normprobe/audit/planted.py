"""A model with every effect of the paper planted in it: the truth is known, and all claims must find it.

Its blocks add nothing and every token has the same embedding; a reasoning signal is added to the residual stream after
each block, like a steering vector. In thought and answer of think the signal is a sum of three of eight orthonormal
reasoning directions, weak in early layers and strong in the last quarter; `Effects` sets its strength per token. The
atoms of the dictionary are these directions. So A1–A4 hold, and the norm of a state is that of the reasoning signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from normprobe.audit.networks import Dictionaries, Passage
from normprobe.models.model import OpenModel
from normprobe.saes.dictionary import Dictionary, describe
from normprobe.tracing.stream import token_offsets
from normprobe.tracing.trace import TRACED

N_DIRECTIONS, ACTIVE = 8, 3
COMMON = 10.0  # ‖B‖, the same for every token
EARLY, LATE = 0.5, 5.0  # reasoning signal / common part, before and in the last quarter of layers
FAINTER = 0.05  # by how much the common part falls in thinking, so that none of it looks like reasoning
JITTER = 0.02  # of the common part from token to token: norms that are all equal have no ranks
THRESHOLD = 0.01  # of a code, far above rounding and far below any signal


@dataclass(frozen=True)
class Effects:
    """How the reasoning signal varies; logarithms of factors.

    computed: where something is computed; level: per level of difficulty; domain: from one domain to the next, in the
    last quarter of layers; surprisal: from the least to the most surprising next token of a response, as the early
    checkpoint saw it.
    """

    computed: float = 0.5
    level: float = 0.15
    domain: float = 0.4
    surprisal: float = 0.2


# The more the signal varies, the better a random dictionary sees it too. So effects that a claim does not need are kept
# small, and two claims get a planted model of their own.
REASONING = Effects()
LEARNING = Effects(computed=0.0, level=0.25, domain=0.5, surprisal=1.5)


def amplitudes(
    passage: Passage, early_surprisal: Float[np.ndarray, " token"], n_layers: int, effects: Effects
) -> Float[np.ndarray, "layer token"]:
    """How strong the reasoning signal is, in activation units; 0 outside thought and answer of think."""
    tokens = passage.tokens
    thinking = (tokens["mode"] == "think") & tokens["segment"].isin(["thought", "answer"])
    # What the state has to predict is the next token.
    response = tokens["response_id"].to_numpy()
    hard = pd.Series(early_surprisal).groupby(response).rank(pct=True).groupby(response).shift(-1)
    facts = passage.problems.set_index("problem_id").loc[tokens["problem_id"]]
    level = pd.to_numeric(facts["difficulty"], errors="coerce").to_numpy(dtype=float)
    known = np.isfinite(level)
    above = np.where(known, level - level[known].mean(), 0.0) if known.any() else np.zeros(len(level))
    domain, _ = pd.factorize(facts["domain"])
    log_factor = (
        effects.computed * (tokens["role"] == "computed").to_numpy()
        + effects.level * above
        + effects.surprisal * hard.fillna(0.5).to_numpy()
    )
    late = np.arange(n_layers) >= n_layers - -(-n_layers // 4)
    strength = COMMON * np.where(late, LATE, EARLY)[:, None]
    raised = np.where(late[:, None], effects.domain * domain, 0.0)
    return thinking.to_numpy() * strength * np.exp(log_factor + raised)


def plant(
    opened: OpenModel,
    passage: Passage,
    amplitude: Float[np.ndarray, "layer token"],
    generator: torch.Generator,
) -> tuple[OpenModel, Dictionaries]:
    """The planted model and its dictionaries, the same in all layers. The model can read the passage only."""
    network = opened.fresh(0)
    d = network.identity.d_model
    basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    directions = basis[1 : 1 + N_DIRECTIONS]
    with torch.no_grad():
        for block in network.blocks:
            for parameter in block.parameters():
                if parameter.ndim == 2:
                    parameter.zero_()
        network.model.get_input_embeddings().weight.copy_(COMMON * basis[0])  # type: ignore[union-attr]
    patterns = torch.tensor(list(combinations(range(N_DIRECTIONS), ACTIVE)))
    chosen = patterns[torch.randint(len(patterns), (amplitude.shape[1],), generator=generator)]
    pattern = directions[chosen].sum(dim=1) / ACTIVE**0.5
    # The stream keeps what earlier blocks wrote: each adds the difference only.
    rise = torch.from_numpy(np.diff(amplitude, axis=0, prepend=0).astype(np.float32))
    jitter = JITTER * torch.randn(amplitude.shape[1], generator=generator)
    common = jitter - FAINTER * torch.from_numpy((amplitude[0] > 0).astype(np.float32))
    _attach(network, passage, rise, pattern, common[:, None] * basis[0])
    return network, dict.fromkeys(range(network.identity.n_layers), _dictionary(network, basis))


def _attach(
    network: OpenModel,
    passage: Passage,
    rise: Float[torch.Tensor, "layer token"],
    pattern: Float[torch.Tensor, "token d"],
    common: Float[torch.Tensor, "token d"],
) -> None:
    """Hooks that add to each block's output the signal of the tokens that the model is reading."""
    offsets, _ = token_offsets(passage.responses, TRACED)
    first = {
        tuple(ids): int(offset)
        for ids, offset in zip(passage.responses["token_ids"], offsets, strict=True)
        if offset >= 0
    }
    # In the token table, of each token of this pass; −1 for padding.
    rows = torch.empty(0, 0, dtype=torch.int64)

    def locate(_module: object, _inputs: object, arguments: dict[str, torch.Tensor]) -> None:
        nonlocal rows
        ids, mask = arguments["input_ids"], arguments["attention_mask"].bool()
        rows = torch.full_like(ids, -1)
        for row, sequence, real in zip(rows, ids, mask, strict=True):
            start = first[tuple(sequence[real].tolist())]
            row[real] = torch.arange(start, start + int(real.sum()))

    def add(layer: int, _module: object, _inputs: object, output: object) -> object:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, torch.Tensor)
        added = rise[layer][rows][..., None] * pattern[rows]
        if layer == 0:
            added = added + common[rows]
        new = hidden + torch.where((rows >= 0)[..., None], added, torch.zeros(()))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    network.model.base_model.register_forward_pre_hook(locate, with_kwargs=True)
    for layer, block in enumerate(network.blocks):
        block.register_forward_hook(partial(add, layer))


def _dictionary(network: OpenModel, basis: Float[torch.Tensor, "d d"]) -> Dictionary:
    """The whole orthonormal basis as atoms, with codes ReLU'd at a threshold: exact on the planted states."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    config = JumpReLUSAEConfig(
        d_in=len(basis),
        d_sae=len(basis),
        normalize_activations="none",
        metadata=SAEMetadata(**describe(network.identity, 0, "planted", 0)),
    )
    with torch.random.fork_rng(devices=[]):  # its constructor draws weights, which are replaced at once
        sae = JumpReLUSAE(config)
    with torch.no_grad():
        sae.W_enc.copy_(basis.T)
        sae.W_dec.copy_(basis)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
        sae.threshold.fill_(THRESHOLD)
    return Dictionary.of(sae)
