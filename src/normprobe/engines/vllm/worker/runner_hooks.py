"""Policies on a model runner: who is at work, which rows of a pass are theirs, and each site to its policy."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import CUDAGraphMode
from vllm.model_executor.models.utils import PPMissingLayer

from normprobe.engines.vllm.configuration import FIELD, Configuration, policy_of
from normprobe.engines.vllm.limits import Limits
from normprobe.engines.vllm.worker.eligible_rows import Batch, Placed, place
from normprobe.engines.vllm.worker.end_tokens import Stops
from normprobe.engines.vllm.worker.model_check import check_parts, check_states
from normprobe.engines.vllm.worker.rerun import Attentions, BlockRerun
from normprobe.engines.vllm.worker.residual_stream import Site, blocks_of
from normprobe.engines.vllm.worker.slots import Slots
from normprobe.errors import NormprobeError
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
        profile = configuration.layer_profile()
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
        self._preempted: list[str] = []
        self._stops: Stops | None = None
        if config.scheduler_config.async_scheduling:  # only then is a row computed for the token after a stop
            vocab = config.model_config.get_vocab_size()
            self._stops = Stops(config.scheduler_config.max_num_seqs, vocab, runner.device)
        # Then a pass that is not everybody's would hang.
        self._lockstep = Limits.of(config).lockstep
        self._checking, self._checked = False, set[int]()
        blocks = blocks_of(runner.get_model(), n_layers)
        self.layers = [layer for layer, block in enumerate(blocks) if not isinstance(block, PPMissingLayer)]
        for layer in self.layers:
            check_parts(blocks[layer], layer)
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

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._begin()
            try:
                return model_forward(*args, **kwargs)
            finally:
                self._finish()

        runner._update_states, runner._model_forward = updated, forward

    def check(self) -> None:
        """Whether policies can act in this model, tried in a pass of no request; needs the key-value cache.

        Raises NormprobeError if not.
        """
        self._checking, self._checked = True, set()
        try:
            self._runner._dummy_run(1, cudagraph_runtime_mode=CUDAGraphMode.NONE, skip_eplb=True)
        finally:
            self._checking = False
        if missed := sorted(set(self.layers) - self._checked):
            raise NormprobeError(
                f"expected a pass to come through all decoder blocks, got none through {missed}; "
                "serve a model with a plain stack of decoder blocks"
            )

    def _check(self, site: Site, layer: int, rerun: Callable[[Placed], BlockRerun]) -> None:
        self._checked.add(layer)
        if not self._lockstep:
            zero = torch.zeros(1, dtype=torch.int64, device=self._runner.device)
            check_states(site, rerun(Placed(zero, zero, zero, np.zeros(1, np.int64), np.zeros(1, np.int64))))

    def _update(self, scheduler_output: Any) -> None:
        """Slots for who starts, none for who is done. A preempted request starts again from its first token, since it
        reads no prefix cache (see requests.py). Its slot stays until the next update, for under asynchronous scheduling
        the token under way may still end it, and its results are asked for then; but not where others start in the
        same update, which only happens after a reset that throws such tokens away."""
        self.slots.free(scheduler_output.finished_req_ids)
        self.slots.free(self._preempted)
        self._preempted = list(scheduler_output.preempted_req_ids or ())
        parameters = {new.req_id: new.sampling_params for new in scheduler_output.scheduled_new_reqs}
        for request in scheduler_output.scheduled_cached_reqs.resumed_req_ids:
            parameters[request] = self._runner.requests[request].sampling_params
        starting = {
            request: given.extra_args[FIELD]
            for request, given in parameters.items()
            if given is not None and given.extra_args and FIELD in given.extra_args
        }
        if parameters:
            self.slots.free(self._preempted)
            self._preempted = []
        if not starting:
            self.slots.tidy()
        else:
            self.slots.take(starting)
            if self._stops is not None:
                self._stops.set({self.slots.held[request].slot: parameters[request] for request in starting})

    def _begin(self) -> None:
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
        if self._stops is not None:
            # The runner's own: a model that takes embeddings is given no tokens.
            tokens = self._runner.input_ids.gpu
            self._placed = {
                policy: [self._stops.masked(placed, tokens) for placed in ranks]
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
        if layer not in self._asked and not self._checking:
            return None
        site = Site.of(output, layer)

        def rerun(placed: Placed) -> BlockRerun:
            return BlockRerun(layer, block, args, kwargs, placed, self._attentions)

        if self._checking:
            self._check(site, layer, rerun)
            return None
        return self._apply(site, layer, lambda placed, _: rerun(placed)).output

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
