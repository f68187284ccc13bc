"""Attention that tells the entropy of its weights: the same result as eager attention, a block of queries at a time.

Fused kernels never form the weights, and eager attention forms all of them: heads × length² floats. Transformers lets a
model's attention be replaced by a function (`AttentionInterface`); the one here forms the weights of a few queries,
takes their entropy from the log-sum-exp of their scores, and lets them go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.reading_plan import SMALL

_HIDDEN = torch.finfo(torch.float32).min
"""The score of a key that a query must not see: finite, so that 0 · score is 0."""
_FOREIGN = ("position_bias", "indices", "block_indices", "sinks", "head_mask")
"""Options of some architectures' attention that change its weights: a bias, or a choice of keys."""

Entropies = dict[int, Float[torch.Tensor, "row query"]]
"""Layer → mean over heads of the entropy of the attention weights, in nats, in the latest forward pass."""


@contextmanager
def attention_entropies(opened: OpenModel, scratch: int) -> Iterator[Entropies]:
    """Within the block attention is `blockwise_attention`, and each layer's entropies stand in what this yields.

    scratch: how many scores of float32 are held at once. A layer without attention never stands there; a model that
    does not take its attention from Transformers' interface keeps its own, and none of its layers does.
    """
    latest: Entropies = {}
    layer_of = {id(module): layer for layer, block in enumerate(opened.blocks) for module in block.modules()}

    def attention(module: nn.Module, *tensors: Any, **options: Any) -> tuple[torch.Tensor, None]:
        output, entropy = blockwise_attention(module, *tensors, scratch=scratch, **options)
        if (layer := layer_of.get(id(module))) is not None:
            latest[layer] = entropy
        return output, None

    model = opened.model
    if not model._can_set_attn_implementation():
        yield latest
        return
    # The registry is Transformers' own: the name is this block's alone, and goes with it.
    name, before = f"normprobe_entropy_{id(latest)}", model.config._attn_implementation or "eager"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    try:
        model.set_attn_implementation(name)
        yield latest
    finally:
        model.set_attn_implementation(before)
        del AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]


def blockwise_attention(
    module: nn.Module,
    query: Float[torch.Tensor, "row head query d"],
    key: Float[torch.Tensor, "row kv_head key d"],
    value: Float[torch.Tensor, "row kv_head key d_value"],
    attention_mask: torch.Tensor | None,
    *,
    scratch: int,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Float[torch.Tensor, " head"] | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Float[torch.Tensor, "row query head d_value"], Float[torch.Tensor, "row query"]]:
    """softmax(softcap·tanh(scaling·QKᵀ/softcap) + mask)·V, and H = −Σ_key a·ln a of its weights a, mean over heads.

    Computed in float32 whatever the model's dtype, in the order in which eager attention computes, so that what is
    small enough for one block comes out the same bit for bit. With m the largest score and a = eˢ⁻ᵐ/Z, the entropy is
    ln Z·Σa − Σ a·(s − m), where ln Z = −ln max a.
    A sink (`s_aux`, gpt-oss) is a further score that adds to Z alone. `attention_mask` is boolean (True: seen) or
    added to the scores; without one, a query sees the keys up to its own.

    Raises NormprobeError for options that change the weights in another way (see `_FOREIGN`).
    """
    if foreign := [name for name in _FOREIGN if options.get(name) is not None]:
        raise NormprobeError(
            f"expected attention of queries, keys, values, a mask and sinks, got also {', '.join(foreign)} in "
            f"{type(module).__name__}; this architecture cannot be measured"
        )
    rows, heads, n_queries, d = query.shape
    kv_heads, n_keys = key.shape[1:3]
    group, d_value = heads // kv_heads, value.shape[-1]
    scale = float(d**-0.5 if scaling is None else scaling)
    causal = attention_mask is None and (
        getattr(module, "is_causal", True) if is_causal is None else is_causal
    )
    q, k, v = query.float(), *(tensor.float().repeat_interleave(group, dim=1) for tensor in (key, value))
    output = q.new_empty(rows, heads, n_queries, d_value)
    entropy = q.new_empty(rows, n_queries)
    size = n_queries
    if rows * heads * n_queries * n_keys > SMALL * scratch:
        size = max(1, scratch // (rows * heads * n_keys))
    for start in range(0, n_queries, size):
        part = slice(start, min(start + size, n_queries))
        seen = None if attention_mask is None else attention_mask[:, :, part]
        first, last = 0, n_keys - n_queries + part.stop if causal else n_keys
        if seen is not None and seen.dtype == torch.bool:
            columns = seen.flatten(0, 2).any(dim=0).nonzero()
            first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (first, last)
        s = torch.matmul(q[:, :, part], k[:, :, first:last].transpose(2, 3)).mul_(scale)
        if softcap is not None:
            s.div_(softcap).tanh_().mul_(softcap)
        if causal:
            n = part.stop - part.start
            later = torch.ones(n, n, dtype=torch.bool, device=s.device).triu(1)
            s[..., -n:].masked_fill_(later, _HIDDEN)
        if seen is not None:
            seen = seen[..., first:last]
            s = (
                s.masked_fill_(~seen, _HIDDEN)
                if seen.dtype == torch.bool
                else s.add_(seen).clamp_(min=_HIDDEN)
            )
        a, top, log_z = _weights(s, s_aux)
        output[:, :, part] = torch.matmul(a, v[:, :, first:last])
        total = 1.0 if s_aux is None else a.sum(dim=-1)
        entropy[:, part] = (log_z * total - s.sub_(top).mul_(a).sum(dim=-1)).mean(dim=1)
    return output.transpose(1, 2).to(value.dtype).contiguous(), entropy


def _weights(
    s: Float[torch.Tensor, "row head query key"], sink: Float[torch.Tensor, " head"] | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """softmax(s), the largest score m of each query (a sink's too), and ln Z with Z = Σ eˢ⁻ᵐ."""
    if sink is not None:
        of_sink = sink.float().view(1, -1, 1, 1).expand(*s.shape[:3], 1)
        s = torch.cat([s, of_sink], dim=-1)
    a = torch.softmax(s, dim=-1)
    top, log_z = s.amax(dim=-1, keepdim=True), -a.amax(dim=-1).log()
    return (a if sink is None else a[..., :-1]), top, log_z
