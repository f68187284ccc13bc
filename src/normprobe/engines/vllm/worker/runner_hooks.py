"""Policies in a model runner: slots for its requests, the rows of each pass, and a hook after each block."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import CUDAGraphMode
from vllm.model_executor.models.utils import PPMissingLayer

from normprobe.engines.vllm.configuration import FIELD, RECORD, Configuration, policy_of
from normprobe.engines.vllm.limits import Limits
from normprobe.engines.vllm.worker.eligible_rows import EligibleRows, EndTokens, PassLayout, RowsInTurn
from normprobe.engines.vllm.worker.event_log import EventLog
from normprobe.engines.vllm.worker.model_check import check_parts, check_states
from normprobe.engines.vllm.worker.next_tokens import LogitsHook
from normprobe.engines.vllm.worker.rerun import BlockRerun, RowMetadata
from normprobe.engines.vllm.worker.residual_stream import Site
from normprobe.engines.vllm.worker.runner import WatchedRunner
from normprobe.engines.vllm.worker.slots import Slots
from normprobe.errors import NormprobeError
from normprobe.models.architectures import find_blocks
from normprobe.policies.policy import RunningPolicy
from normprobe.policies.rows import Rerun, Rows
from normprobe.policies.written import read_policy


class RunnerHooks:
    """Attaches policies to a model runner after its model is loaded.

    slots: of the active requests. layers: those that are here and not on another stage of a pipeline. kept: by
    description, the text (`write_policy`) of policies that requests only name.
    """

    def __init__(self, watched: WatchedRunner, configuration: Configuration) -> None:
        self._watched, self._runner = watched, watched.runner
        runner = watched.runner
        config = runner.vllm_config
        text_config = config.model_config.hf_text_config
        n_layers, d = text_config.num_hidden_layers, config.model_config.get_hidden_size()
        profile = configuration.layer_profile()
        self.kept: dict[str, str] = {}
        self.slots = Slots(
            lambda text: (
                read_policy(self.kept[text]) if text in self.kept else policy_of(text, profile, n_layers)
            ),
            config.scheduler_config.max_num_seqs,
            d,
            runner.device,
            keep=configuration.lasting,
        )
        self._events = EventLog()
        self._logits = LogitsHook(runner.get_model(), config.model_config.max_model_len, runner.device)
        self._metadata = RowMetadata(watched)
        self._in_turn = RowsInTurn(runner.device)
        self._rows: dict[str, list[EligibleRows]] = {}
        self._policies: dict[int, list[tuple[RunningPolicy, list[EligibleRows]]]] = {}
        self._preempted: list[str] = []
        self._end_tokens: EndTokens | None = None
        if config.scheduler_config.async_scheduling:  # only then is a row computed for the token after an end
            vocab = config.model_config.get_vocab_size()
            self._end_tokens = EndTokens(config.scheduler_config.max_num_seqs, vocab, runner.device)
        # Then a pass that other ranks do not make would hang.
        self._lockstep = Limits.of(config).lockstep
        self._checking, self._checked = False, set[int]()
        # Those on other pipeline stages are placeholders.
        self._blocks = list(find_blocks(runner.get_model(), n_layers)[1])
        self.layers = [
            layer for layer, block in enumerate(self._blocks) if not isinstance(block, PPMissingLayer)
        ]
        for layer in self.layers:
            check_parts(self._blocks[layer], layer)
        for layer, block in enumerate(self._blocks):
            block.register_forward_hook(
                lambda block, args, kwargs, output, layer=layer: self._change(
                    block, layer, args, kwargs, output
                ),
                with_kwargs=True,
            )
        watched.watch(self._update, self._begin, self._finish, self._may_be_whole)

    def _may_be_whole(self) -> bool:
        """Whether the next step may be one CUDA graph: no Python code of ours would run in it."""
        return False

    def _finish(self) -> None:
        """After a pass: each policy takes it into its history."""
        for policy in self._rows:
            self.slots.running[policy].finish()
        self._rows, self._policies = {}, {}

    def results(self, requests: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What the probes measured by request, as `probe_results` gives it, and "events" where they were asked for."""
        names = [request for request in requests if request in self.slots.active]
        found = self.slots.results(names, self.layers)
        for request in names:
            events = self._events.of(self.slots.active[request].slot)
            if events is not None:
                found.setdefault(request, {})["events"] = events
        return found

    def check(self) -> None:
        """Check that policies can act in this model, in a pass of no request; needs the key-value cache.

        Raises NormprobeError if they cannot.
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

    def _check(self, site: Site, layer: int, rerun: Callable[[EligibleRows], BlockRerun]) -> None:
        self._checked.add(layer)
        if not self._lockstep:
            zero = torch.zeros(1, dtype=torch.int64, device=self._runner.device)
            host = np.zeros(1, np.int64)
            check_states(site, rerun(EligibleRows(zero, zero, zero, host, host)))

    def _update(self, scheduler_output: Any) -> None:
        """Give slots to the requests that start, and free those of requests that ended.

        A preempted request starts again from its first token, since it reads no prefix cache (see
        frontend/admission.py). Its slot stays until the next update, for under asynchronous scheduling the token under
        way may still end it, and its results are asked for then; but not where others start in the same update, which
        only happens after a reset that throws such tokens away.
        """
        parameters = self._watched.starting(scheduler_output)
        ended, preempted = scheduler_output.finished_req_ids, scheduler_output.preempted_req_ids or ()
        if not (parameters or ended or preempted or self._preempted):
            return
        self.slots.free(ended)
        self._logits.forget(ended)
        self.slots.free(self._preempted)
        self._preempted = list(preempted)
        starting = {
            request: given.extra_args[FIELD]
            for request, given in parameters.items()
            if given is not None and given.extra_args and FIELD in given.extra_args
        }
        if parameters:
            self.slots.free(self._preempted)
            self._preempted = []
        self.slots.take(starting)
        slots = {request: self.slots.active[request] for request in starting}
        recorded = [one.slot for request, one in slots.items() if parameters[request].extra_args.get(RECORD)]
        held = {one.slot for one in self.slots.active.values()}
        self._events.update(held, {one.slot for one in slots.values()}, recorded)
        reading = [request for request, one in slots.items() if one.policy in self.slots.reading]
        self._logits.start(parameters, reading)
        if self._end_tokens is not None:
            self._end_tokens.set({one.slot: parameters[request] for request, one in slots.items()})

    def _begin(self) -> None:
        """Before a pass: find the rows of each policy, and the policies of each layer."""
        layout = self._watched.layout()
        self._logits.begin(layout)
        self._place(layout)

    def _place(self, layout: PassLayout) -> None:
        if not self.slots.active:
            return
        self._rows = dict(self._in_turn.of(layout, self.slots.active))
        for policy in self.slots.reading & self._rows.keys():
            self._rows[policy] = [
                replace(rows, entropy=self._logits.entropies.of(rows, layout)) for rows in self._rows[policy]
            ]
        if self._end_tokens is not None:
            tokens = self._watched.tokens()
            self._rows = {
                policy: [self._end_tokens.masked(rows, tokens) for rows in ranks]
                for policy, ranks in self._rows.items()
            }
        for policy, ranks in self._rows.items():
            for layer in self.slots.layers[policy]:
                self._policies.setdefault(layer, []).append((self.slots.running[policy], ranks))

    def _change(
        self, block: nn.Module, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """The block's output after the policies; None leaves it as it is."""
        if layer not in self._policies and not self._checking:
            return None
        site = Site.of(output, layer)

        def rerun(rows: EligibleRows) -> BlockRerun:
            return BlockRerun(layer, block, args, kwargs, rows, self._metadata)

        if self._checking:
            self._check(site, layer, rerun)
            return None
        return self._apply(site, layer, lambda rows, _: rerun(rows)).output

    def _apply(self, site: Site, layer: int, rerun: Callable[[EligibleRows, torch.Tensor], Rerun]) -> Site:
        """The site after the policies of this layer. rerun: the extra pass of these rows in these states."""
        for running, ranks in self._policies[layer]:
            for eligible in ranks:
                rows = Rows(site.at(eligible.index), eligible.slot, eligible.step, eligible.entropy)
                change = running.apply(rows, layer, rerun(eligible, rows.hidden))
                if self._events:
                    self._events.add(rows, layer, change)
                if change.hidden is not rows.hidden:
                    site = site.changed(eligible.index, change)
                if len(ranks) > 1:
                    running.finish()  # further tokens of the same requests follow: this one is their history
        return site
