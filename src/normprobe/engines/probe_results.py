"""What a probe measured of a request, as every engine returns it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import torch

from normprobe.policies.lrs import FORMS, LAST_PART, LAST_THIRD, last_tokens, with_rates
from normprobe.policies.rows import ProbeSummary

SUMS = ("total", "excess", "above", "last_excess", "last_third")
"""The sums of one layer that the scores `FORMS` add up over the layers."""


def probe_results(summary: ProbeSummary, here: Container[int] | None = None) -> list[dict[str, Any]]:
    """By request: {"n_tokens": int, "layers": {layer: {"total", "excess", "above", "largest", "last_excess",
    "last_third" and, with max_tokens > 0, "norm": [token]}}}.

    The first four are those of `ProbeSummary`; the next two are Σ max(0, norm − τ) and Σ norm over the last parts that
    LRS scores (`ProbeSummary.last`). Layers are text, as JSON has them. here: those to report, by default all.
    """
    columns = {str(layer): i for i, layer in enumerate(summary.layers) if here is None or layer in here}
    counts = summary.n_tokens.tolist()
    (_, last_excess), (last_third, _) = (
        summary.last(torch.tensor([last_tokens(n, share) for n in counts], dtype=torch.int64))
        for share in (LAST_PART, LAST_THIRD)
    )
    values = {name: getattr(summary, name) for name in ("total", "excess", "above", "largest")}
    values |= {"last_excess": last_excess, "last_third": last_third}
    n_kept = summary.norm.shape[2]
    results = []
    for row, n in enumerate(counts):
        layers: dict[str, dict[str, Any]] = {
            layer: {name: value[row, i].item() for name, value in values.items()}
            for layer, i in columns.items()
        }
        if n_kept:
            for layer, i in columns.items():
                layers[layer]["norm"] = summary.norm[row, i, : min(n, n_kept)].tolist()
        results.append({"n_tokens": n, "layers": layers})
    return results


def with_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the LRS scores over its layers in "scores", as `normprobe.policies.lrs.lrs_scores` names them."""
    layers = {layer: result["layers"][layer] for layer in sorted(result["layers"], key=int)}
    sums = {
        form: math.fsum(values[name] for values in layers.values())
        for form, name in zip(FORMS, SUMS, strict=True)
    }
    return {"n_tokens": result["n_tokens"], "layers": layers, "scores": with_rates(sums, result["n_tokens"])}
