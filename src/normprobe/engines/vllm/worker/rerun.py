"""One extra pass of a block on its own output, for some rows only, reading the key-value cache and writing nothing.

Each chosen row becomes a request of its own with one query token: sequence length = its position + 1, its request's
row of the block table. From that every attention backend of vLLM builds its metadata as for an ordinary decode batch.
Nothing is written: `unified_kv_cache_update` looks up `slot_mapping[layer]`, which is absent, and a backend that writes
inside its attention finds slot −1, padding, for every row. The cache holds the keys and values of the first pass.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from vllm.forward_context import get_forward_context, override_forward_context
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.v1.attention.backend import CommonAttentionMetadata

from normprobe.engines.vllm.worker.eligible_rows import EligibleRows
from normprobe.engines.vllm.worker.residual_stream import Site
from normprobe.engines.vllm.worker.row_adapters import adapters_of
from normprobe.engines.vllm.worker.runner import WatchedRunner
from normprobe.policies.rows import RowMask, RowStates


class RowMetadata:
    """Builds attention metadata for a few rows of the pass under way."""

    def __init__(self, watched: WatchedRunner) -> None:
        self._watched, self.runner = watched, watched.runner
        self._groups: dict[str, Any] = {}
        self._blocks: dict[nn.Module, tuple[inspect.Signature, list[str]]] = {}

    def shape_of(self, block: nn.Module) -> tuple[inspect.Signature, list[str]]:
        """The signature of a block, and the names under which the forward context knows its attention layers.

        Found once: it takes as long as a small layer does.
        """
        if block not in self._blocks:
            states = [module for module in block.modules() if isinstance(module, AttentionLayerBase)]
            names = [str(state.layer_name) for state in states]
            self._blocks[block] = inspect.signature(block.forward), names
        return self._blocks[block]

    def _group(self, name: str) -> Any:
        """The runner's attention group of a layer, with metadata builders of our own.

        Some builders keep state between build and use, which the pass under way still needs.
        """
        if name not in self._groups:
            runner = self.runner
            for group in (group for groups in runner.attn_groups for group in groups):
                if name in group.layer_names:
                    own = replace(group, metadata_builders=[])
                    own.create_metadata_builders(
                        runner.vllm_config,
                        runner.device,
                        self._watched.kernel_block_size(group.kv_cache_group_id),
                    )
                    self._groups |= dict.fromkeys(group.layer_names, own)
        return self._groups[name]

    def of(
        self,
        names: list[str],
        request: Int[np.ndarray, " row"],
        position: Int[np.ndarray, " row"],
    ) -> dict[str, Any]:
        """Metadata by attention layer, with one query token per row.

        request: the row's request, by its place in the batch. position: of the token in that request.
        """
        n, device = len(request), self.runner.device
        length = torch.from_numpy((position + 1).astype(np.int32))
        start = torch.arange(n + 1, dtype=torch.int32)
        at = torch.from_numpy(request).to(device)
        metadata: dict[str, Any] = {}
        for name in names:
            group = self._group(name)
            common = CommonAttentionMetadata(
                query_start_loc=start.to(device),
                query_start_loc_cpu=start,
                seq_lens=length.to(device),
                seq_lens_cpu_upper_bound=length,
                num_reqs=n,
                num_actual_tokens=n,
                max_query_len=1,
                max_seq_len=int(position.max()) + 1,
                block_table_tensor=self._watched.block_table(group.kv_cache_group_id)[at],
                slot_mapping=torch.full((n,), -1, dtype=torch.int64, device=device),
                is_prefilling=torch.zeros(n, dtype=torch.bool),
                positions=torch.from_numpy(position).to(device),
            )
            metadata[name] = group.build_metadata(common)
        return metadata


@dataclass(frozen=True)
class BlockRerun:
    """`Rerun` (see `normprobe.policies.rows`) of one block in the pass under way.

    args, kwargs: what the block was called with. rows: those of the policy that asks.
    """

    layer: int
    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rows: EligibleRows
    metadata: RowMetadata

    def __call__(self, active: RowMask, states: RowStates) -> RowStates | None:
        host = active.cpu().numpy().nonzero()[0]  # the one read of the host
        if len(host) == 0:
            return None
        chosen = torch.from_numpy(host).to(active.device)
        return torch.zeros_like(states).index_copy(0, chosen, self.once(host, chosen, states[chosen]))

    def once(
        self,
        host: Int[np.ndarray, " chosen"],
        chosen: Int[torch.Tensor, " chosen"],
        hidden: Float[torch.Tensor, "chosen d"],
        residual: Float[torch.Tensor, "chosen d"] | None = None,
    ) -> Float[torch.Tensor, "chosen d"]:
        """The states of the chosen rows after one pass of the block over them, given whole or in two halves.

        host, chosen: the same places among the rows, on the host and on the device.
        """
        metadata = self.metadata.of(
            self.metadata.shape_of(self.block)[1], self.rows.request[host], self.rows.position[host]
        )
        context = replace(
            get_forward_context(),
            attn_metadata=metadata,
            slot_mapping={},
            is_padding=None,
            all_moe_layers=None,
        )
        index = self.rows.index[chosen]
        arguments = self._arguments(index, hidden, residual)
        # A compiled engine would compile each part of the block by itself, anew for every number of rows.
        with (
            override_forward_context(context),
            torch.compiler.set_stance("force_eager"),
            adapters_of(self.metadata.runner, index),
        ):
            # Not through the block's __call__, which would run our own hooks.
            site = Site.of(self.block.forward(**arguments), self.layer)
        return site.at(torch.arange(len(chosen), device=chosen.device))

    def _arguments(
        self, index: Int[torch.Tensor, " chosen"], hidden: torch.Tensor, residual: torch.Tensor | None
    ) -> dict[str, Any]:
        """The block's arguments for these tokens in these states."""
        signature, _ = self.metadata.shape_of(self.block)
        given: dict[str, Any] = {}
        for name, value in signature.bind(*self.args, **self.kwargs).arguments.items():
            more = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            given |= value if more else {name: value}
        n_tokens = len(given["hidden_states"])
        arguments = {name: _rows(value, index, n_tokens) for name, value in given.items()}
        arguments["hidden_states"] = hidden
        if "residual" in arguments:
            arguments["residual"] = residual
        return arguments


def _rows(value: Any, index: Int[torch.Tensor, " chosen"], n_tokens: int) -> Any:
    """An argument by token (the last axis of positions, else the first), cut to the chosen ones."""
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    if not value.is_floating_point() and value.shape[-1] == n_tokens:
        return value[..., index]
    return value[index] if value.shape[0] == n_tokens else value
