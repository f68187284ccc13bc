"""Policies in a compiled model, with or without CUDA graphs in pieces.

Python code runs while a model is traced and never again; an operator runs in every pass. So each block is followed by
one operator that is opaque to the compiler, `normprobe::intervene`: it finds the rows of the pass under way through
vLLM's forward context, as attention does, applies the policies, and writes into the block's output where they act. vLLM
splits its graphs there as it does at attention, so nothing of a request is captured.

A graph of a whole decode step leaves no room in between. The engine's lasting policies, which are its default and those
that its operator names, are part of such graphs (worker/whole_pass.py); a step with a request that asks for anything
else runs in pieces.

An extra pass can be part of the graph: a twin of the block, always computed for all rows. It shares everything with its
block but what it knows of its cache: as attention that reads the cache of another layer, it has no write to trace. No
shape depends on the data and nothing waits for the device; which rows use it is the policy's mask.

Measured: on the CPU, Inductor, one graph and pieces, and what a whole graph would hold, recorded once and replayed. Not
run anywhere: the capture of CUDA graphs.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import copy
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import nn
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

from normprobe.engines.vllm.configuration import FIELD, Configuration
from normprobe.engines.vllm.worker.eligible_rows import EligibleRows, PassLayout
from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.engines.vllm.worker.residual_stream import SiteInPlace
from normprobe.engines.vllm.worker.runner import WatchedRunner
from normprobe.engines.vllm.worker.runner_hooks import RunnerHooks
from normprobe.engines.vllm.worker.whole_pass import WholePass, fits_a_graph
from normprobe.policies.policy import Policy
from normprobe.policies.rows import Rerun, RowMask, RowStates


def _recursing(policy: Policy) -> set[int]:
    """The layers that a policy runs once more."""
    return {layer for part in policy.parts if part.cost(0).extra_passes for layer in part.layers}


def twins_of(blocks: Sequence[nn.Module], layers: Iterable[int], runner: Any) -> dict[int, nn.Module]:
    """The twins of these layers' blocks, by layer; layers that can have none are left out."""
    if runner.compilation_config.static_all_moe_layers:
        return {}  # vLLM counts such layers as they are called, so none may be called twice
    return {layer: twin_of(blocks[layer]) for layer in layers if _writes_apart(blocks[layer])}


def _writes_apart(block: nn.Module) -> bool:
    """Whether all attention of the block writes the cache in a separate operator, which a twin can leave out."""
    states = [module for module in block.modules() if isinstance(module, AttentionLayerBase)]
    return bool(states) and all(
        isinstance(state, Attention) and not state.attn_backend.forward_includes_kv_cache_update
        for state in states
    )


def twin_of(module: nn.Module) -> nn.Module:
    """A copy of the module that shares all parameters and buffers, without hooks; its attention writes nothing."""
    twin = copy.copy(module)
    twin._forward_hooks = OrderedDict()
    twin._modules = {
        name: child if child is None or not _holds_attention(child) else twin_of(child)
        for name, child in module._modules.items()
    }
    if isinstance(module, Attention):
        twin.kv_sharing_target_layer_name = module.layer_name
    return twin


def _holds_attention(module: nn.Module) -> bool:
    return any(isinstance(part, Attention) for part in module.modules())


@dataclass(frozen=True)
class TwinRerun:
    """`Rerun` (see `normprobe.policies.rows`) whose first pass over the rows the twin has computed already.

    before: the rows' states. after: those states after one more pass. block: for any other states, such as those of a
    second extra pass.
    """

    before: RowStates
    after: RowStates
    block: BlockRerun

    def __call__(self, active: RowMask, states: RowStates) -> RowStates | None:
        return self.after if states is self.before else self.block(active, states)


class CompiledRunnerHooks(RunnerHooks):
    """`RunnerHooks` for a model that is compiled afterwards, at its first pass.

    Layers in which one of the engine's lasting policies recurses get a twin: an extra pass that is part of the graph.
    What a request asks for elsewhere, or beyond one pass, runs as in eager mode.
    """

    def __init__(self, watched: WatchedRunner, configuration: Configuration) -> None:
        super().__init__(watched, configuration)
        runner = watched.runner
        n_layers = runner.vllm_config.model_config.hf_text_config.num_hidden_layers
        self._parameters = [list(inspect.signature(block.forward).parameters) for block in self._blocks]
        policies = configuration.lasting_policies(n_layers)
        recursing = {layer for policy in policies.values() for layer in _recursing(policy)}
        self._twins = twins_of(self._blocks, sorted(recursing), runner)
        self._graph, self._fitting = self._whole_steps(policies)
        self._in_pieces = False
        runner.compilation_config.static_forward_context[FIELD] = self

    def _whole_steps(self, policies: Mapping[str, Policy]) -> tuple[WholePass | None, frozenset[str]]:
        """The lasting policies in graphs of whole steps, None if none has anything to do in one; and by the texts that
        describe them those whose requests leave a step whole."""
        runner, config = self._runner, self._runner.vllm_config
        mode = runner.compilation_config.cudagraph_mode
        if not mode.has_full_cudagraphs():
            return None, frozenset()
        if config.parallel_config.pipeline_parallel_size > 1 and not mode.has_piecewise_cudagraphs():
            # A stage whose blocks cannot be run twice would not pad its batch as the others do.
            return None, frozenset()
        fitting = {
            text: frozenset(policy.layers) & frozenset(self.layers)
            for text, policy in policies.items()
            if fits_a_graph(policy) and _recursing(policy) & {*self.layers} <= self._twins.keys()
        }
        for text in policies.keys() - fitting.keys():
            warnings.warn(f"no graph can hold {text}: steps of its requests run in pieces", stacklevel=2)
        if not any(fitting.values()):
            return None, frozenset(fitting)
        state = torch.zeros(
            1, config.model_config.get_hidden_size(), dtype=config.model_config.dtype, device=runner.device
        )
        whole = WholePass(
            {text: self.slots.running[text] for text, here in fitting.items() if here},
            fitting,
            config.scheduler_config.max_num_seqs,
            state,
            *self._watched.buffers(),
            self._end_tokens,
        )
        return whole, frozenset(fitting)

    def _may_be_whole(self) -> bool:
        # Where replicas would have to agree there are no such graphs (frontend/engine_setup.py).
        return not self._events and all(one.policy in self._fitting for one in self.slots.active.values())

    def _place(self, layout: PassLayout) -> None:
        whole = self._watched.whole
        # Without requests a graph may be under way, or what precedes its capture.
        self._in_pieces = not whole and len(layout.requests) > 0
        if not whole:
            super()._place(layout)
        elif self._graph is not None:
            self._graph.place(layout, self.slots.active)

    def _finish(self) -> None:
        super()._finish()
        self._in_pieces = False

    @no_type_check  # traced, which the wrapper of a type checker would not survive
    def _change(self, block, layer, args, kwargs, output):
        """Put the operator after a block, while the model is traced."""
        given = dict(zip(self._parameters[layer], args, strict=False)) | kwargs
        names = [
            name
            for name, value in given.items()
            if isinstance(value, torch.Tensor) and name not in ("hidden_states", "residual")
        ]
        halves = list(output) if isinstance(output, tuple) else [output]
        again = None
        if layer in self._twins:
            # A fresh tensor: fused norms write into what they are given.
            state = halves[0] + halves[1] if len(halves) == 2 else halves[0].clone()
            out = self._twins[layer](**given | self._whole(layer, state))
            again = out[0] + out[1] if isinstance(out, tuple) else out
        torch.ops.normprobe.intervene(halves, again, [given[name] for name in names], " ".join(names), layer)

    @no_type_check  # traced too
    def _whole(self, layer, state):
        """The block's arguments for a state that is not in halves."""
        return {"hidden_states": state} | (
            {"residual": None} if "residual" in self._parameters[layer] else {}
        )

    def intervene(
        self,
        halves: list[torch.Tensor],
        again: Float[torch.Tensor, "token d"] | None,
        arguments: Mapping[str, torch.Tensor],
        layer: int,
    ) -> None:
        """Apply the policies, and write into the halves of the layer's output where they act.

        again: the output after one more pass, by the twin. arguments: the block's other arguments, by name.
        """
        if self._graph is not None and not self._in_pieces and not self._checking:
            self._graph.apply(SiteInPlace.of(tuple(halves), layer), layer, again)
            return
        if layer not in self._policies and not self._checking:
            return
        site = SiteInPlace.of(tuple(halves), layer)
        given = dict(arguments) | self._whole(layer, halves[0])

        def rerun(rows: EligibleRows) -> BlockRerun:
            return BlockRerun(layer, self._blocks[layer], (), given, rows, self._metadata)

        def twin(rows: EligibleRows, states: torch.Tensor) -> Rerun:
            block = rerun(rows)
            return block if again is None else TwinRerun(states, again[rows.index], block)

        if self._checking:
            self._check(site, layer, rerun)
        else:
            self._apply(site, layer, twin)


def _intervene(
    halves: list[torch.Tensor],
    again: torch.Tensor | None,
    arguments: list[torch.Tensor],
    names: str,
    layer: int,
) -> None:
    hooks: CompiledRunnerHooks = get_forward_context().no_compile_layers[FIELD]
    hooks.intervene(halves, again, dict(zip(names.split(), arguments, strict=True)), layer)


# Kept, for the operator lives as long as its library.
_LIBRARY = torch.library.Library("normprobe", "FRAGMENT")
_LIBRARY.define(
    "intervene(Tensor(a!)[] halves, Tensor? again, Tensor[] arguments, str names, int layer) -> ()"
)
_LIBRARY.impl("intervene", _intervene, "CompositeExplicitAutograd")
torch.library.register_fake("normprobe::intervene", lambda *_: None, lib=_LIBRARY)
