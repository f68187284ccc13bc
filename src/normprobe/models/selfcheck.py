"""Prove on the model itself that its sites are the residual stream, and that they do not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch.nn.utils.rnn import pad_sequence

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.placement import device_of
from normprobe.models.sites import record_sites

TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest ‖Δh‖ / ‖h‖ that rounding may cause between batches: low precision drifts, wrong padding gives about 1."""

QUESTIONS = ("What is 2 + 3 ?", "a: 4 +9 ; b: a *2 ; What is b , and why is it so ?")


class _Failed(Exception):
    """A check that failed: what it expected, and what it got."""


class _NotFinite(_Failed):
    """States that no number stands for: in float16 mostly because it ends at 65,504."""


def self_check(opened: OpenModel) -> None:
    """Refuse a model whose hooks do not see the residual stream.

    On two prompts of different length: every site but the last equals `hidden_states`; the last does after the final
    norm, and unembedded gives the model's logits; alone, in a batch, and padded on either side a prompt has the same
    sites.

    Raises NormprobeError naming the first check that failed and by how much.
    """
    short, long = sorted((opened.chat.prompt_ids(q, "no_think") for q in QUESTIONS), key=len)
    try:
        alone = _prove_anatomy(opened, long)
        tolerance = TOLERANCE[opened.model.dtype]
        _compare("in a batch", _sites(opened, [long[::-1], long], "right")[:, 1], alone, tolerance)
        alone, n = _sites(opened, [short], "right")[:, 0], len(short)
        for side, kept in (("right", slice(n)), ("left", slice(-n, None))):
            padded = _sites(opened, [short, long], side)[:, 0, kept]
            _compare(f"padded on the {side}", padded, alone, tolerance)
    except (_Failed, RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as cause:
        finding = str(cause)
        if isinstance(cause, _NotFinite) and opened.model.dtype == torch.float16:
            raise NormprobeError(
                f"{opened.identity.name} failed the self-check: expected {finding}; float16 ends at 65,504, "
                "open it with dtype bfloat16 or float32"
            ) from cause
        if not isinstance(cause, _Failed):
            reason = f"{type(cause).__name__}: {' '.join(finding.split())[:200]}"
            finding = f"a model that runs on token ids, mask and positions, got {reason}"
        raise NormprobeError(
            f"{opened.identity.name} failed the self-check: expected {finding}; "
            f"the sites of {type(opened.model).__name__} cannot be trusted, use another model"
        ) from cause


@torch.no_grad()
def _prove_anatomy(opened: OpenModel, prompt: list[int]) -> Float[torch.Tensor, "layer token d"]:
    ids = torch.tensor([prompt], device=opened.device)
    with record_sites(opened) as sites:
        output = opened.model(input_ids=ids, use_cache=False, output_hidden_states=True)
        states = sites.states
    expected = output.hidden_states[1:]
    if len(states) != len(expected):
        raise _Failed(f"one block for each of {len(expected)} hidden states, got {len(states)} blocks")
    for layer, (site, hidden) in enumerate(zip(states[:-1], expected[:-1], strict=True)):
        _compare(f"after block {layer} against hidden_states[{layer + 1}]", site[0], hidden[0], 0.0)
    exact = TOLERANCE[torch.float32 if opened.model.dtype == torch.float32 else torch.float16]
    norm = opened.anatomy.final_norm
    normed = norm(states[-1].to(device_of(norm)))
    _compare("after the final norm against the last of hidden_states", normed, expected[-1], exact)
    _compare("unembedded against the model's logits", opened.unembed(states[-1]), output.logits, exact)
    return torch.stack([state[0].float() for state in states])


@torch.no_grad()
def _sites(
    opened: OpenModel, prompts: Sequence[list[int]], side: str
) -> Float[torch.Tensor, "layer batch token d"]:
    """The sites of a padded batch, in float32. Positions count from the first real token."""
    rows = [torch.tensor(prompt, device=opened.device) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=opened.chat.pad_id, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with record_sites(opened) as sites:
        opened.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return torch.stack([state.float() for state in sites.states])


def _compare(
    where: str,
    got: Float[torch.Tensor, "*rows d"],
    expected: Float[torch.Tensor, "*rows d"],
    tolerance: float,
) -> None:
    """Relative distance of vectors, the largest over all rows, within `tolerance`."""
    if got.shape != expected.shape:
        raise _Failed(f"sites {where} of shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    if not bool(got.isfinite().all()):
        raise _NotFinite(f"finite sites {where}, got NaN or infinity")
    got = got.to(expected.device)
    distance = (got.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1).clamp(min=1e-12)
    if (worst := float(distance.max())) > tolerance:
        raise _Failed(
            f"the same sites {where} up to {tolerance:g} of their norm, got a difference of {worst:.2g}"
        )
