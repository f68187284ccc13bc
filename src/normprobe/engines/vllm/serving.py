"""Policies on a model runner: who is at work, which rows of a pass are theirs, and each site to its policy."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from vllm.model_executor.models.utils import PPMissingLayer

from normprobe.engines.vllm.configuration import FIELD, Configuration, policy_of
from normprobe.engines.vllm.placement import Batch, Placed, place
from normprobe.engines.vllm.rerun import Attentions, BlockRerun
from normprobe.engines.vllm.sites import Site, blocks_of
from normprobe.engines.vllm.slots import Slots
from normprobe.engines.vllm.stops import Stops
from normprobe.policies.rows import Acting, Rerun, Rows


class Serving:
    """Attached to a V1 `GPUModelRunner` (also the CPU's) after its model is loaded.

    Two of the runner's methods are wrapped on the instance, `_update_states` (who is at work) and `_model_forward`
    (one pass); the blocks get forward hooks. No class of vLLM is changed.

    slots: who is at work. layers: those that are here and not on another stage of a pipeline.
    """

    def __init__(self, runner: Any, configuration: Configuration) -> None:
        self._runner = runner
        config = runner.vllm_config
        text_config = config.model_config.hf_text_config
        n_layers, d = text_config.num_hidden_layers, config.model_config.get_hidden_size()
        profile = configuration.load()
        self.slots = Slots(
            lambda text: policy_of(text, profile, n_layers),
            config.scheduler_config.max_num_seqs,
            d,
            runner.device,
            keep=configuration.policy,
        )
        self._attentions = Attentions(runner)
        self._placed: dict[str, list[Placed]] = {}
        self._asked: dict[int, list[tuple[Acting, list[Placed]]]] = {}
        self._stops = Stops(config.scheduler_config.max_num_seqs, runner.device)
        # Only then is a row computed for the token after a stop.
        self._overshoots = bool(config.scheduler_config.async_scheduling)
        blocks = blocks_of(runner.get_model(), n_layers)
        self.layers = [layer for layer, block in enumerate(blocks) if not isinstance(block, PPMissingLayer)]
        for layer, block in enumerate(blocks):
            block.register_forward_hook(
                lambda block, args, kwargs, output, layer=layer: self._change(
                    block, layer, args, kwargs, output
                ),
                with_kwargs=True,
            )
        update_states, model_forward = runner._update_states, runner._model_forward

        def updated(scheduler_output: Any) -> Any:
            self._update(scheduler_output)
            return update_states(scheduler_output)

        def forward(input_ids: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
            self._begin(input_ids)
            try:
                return model_forward(input_ids, *args, **kwargs)
            finally:
                self._finish()

        runner._update_states, runner._model_forward = updated, forward

    def _update(self, scheduler_output: Any) -> None:
        """Slots for who starts, none for who is done. A preempted request starts again from its first token, since it
        reads no prefix cache (see requests.py)."""
        self.slots.free(scheduler_output.finished_req_ids)
        self.slots.free(scheduler_output.preempted_req_ids or ())
        parameters = {new.req_id: new.sampling_params for new in scheduler_output.scheduled_new_reqs}
        for request in scheduler_output.scheduled_cached_reqs.resumed_req_ids:
            parameters[request] = self._runner.requests[request].sampling_params
        starting = {
            request: given.extra_args[FIELD]
            for request, given in parameters.items()
            if given is not None and given.extra_args and FIELD in given.extra_args
        }
        if starting:
            self.slots.take(starting)
            self._stops.set({self.slots.held[request].slot: parameters[request] for request in starting})

    def _begin(self, input_ids: torch.Tensor | None) -> None:
        if not self.slots.held:
            return
        held = self._runner.input_batch
        n = held.num_reqs
        batch = Batch(
            held.req_ids,
            self._runner.query_start_loc.np[: n + 1],
            held.num_computed_tokens_cpu[:n],
            held.num_prompt_tokens[:n],
        )
        self._placed = place(batch, self.slots.held, self._runner.device)
        if self._overshoots and input_ids is not None:
            self._placed = {
                policy: [self._stops.masked(placed, input_ids) for placed in ranks]
                for policy, ranks in self._placed.items()
            }
        for policy, ranks in self._placed.items():
            for layer in self.slots.layers[policy]:
                self._asked.setdefault(layer, []).append((self.slots.acting[policy], ranks))

    def _finish(self) -> None:
        for policy in self._placed:
            self.slots.acting[policy].finish()
        self._placed, self._asked = {}, {}

    def _change(
        self, block: nn.Module, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """What the block gives on; None leaves it as it is."""
        if layer not in self._asked:
            return None
        return self._apply(
            Site.of(output, layer),
            layer,
            lambda placed, _: BlockRerun(layer, block, args, kwargs, placed, self._attentions),
        ).output

    def _apply(self, site: Site, layer: int, rerun: Callable[[Placed, torch.Tensor], Rerun]) -> Site:
        """The site after the policies that are asked here. rerun: of these rows, which have come in these states."""
        for acting, ranks in self._asked[layer]:
            for placed in ranks:
                rows = Rows(site.at(placed.index), placed.slot, placed.step)
                change = acting.apply(rows, layer, rerun(placed, rows.hidden))
                if change.hidden is not rows.hidden:
                    site = site.changed(placed.index, change)
                if len(ranks) > 1:
                    acting.finish()  # further tokens of the same requests follow: this one is their history
        return site
