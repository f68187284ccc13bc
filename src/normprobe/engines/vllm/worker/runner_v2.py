"""vLLM's V2 model runner (`vllm.v1.worker.gpu.model_runner`, also the CPU's), as `WatchedRunner`."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from vllm.config import CUDAGraphMode

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.worker.eligible_rows import PassLayout
from normprobe.engines.vllm.worker.runner import WatchedRunner


class RunnerV2(WatchedRunner):
    """Wraps `finish_requests`, which comes first in a step of requests, `preprocess_state` of its model's state, which
    comes before the model runs on them, `execute_model`, the whole step, and the choice of a CUDA graph.

    A preempted request is finished here, and starts again as a new one does.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self._batch: Any = None
        self._whole = False

    def watch(
        self,
        update: Callable[[Any], None],
        begin: Callable[[], None],
        finish: Callable[[], None],
        may_be_whole: Callable[[], bool],
    ) -> None:
        def finishing(finish_requests: Callable[..., Any], scheduler_output: Any) -> Any:
            update(scheduler_output)
            return finish_requests(scheduler_output)

        def preparing(preprocess_state: Callable[..., Any], batch: Any, *args: Any) -> Any:
            self._batch = batch
            begin()
            return preprocess_state(batch, *args)

        def dispatching(
            dispatch: Callable[..., Any],
            num_reqs: int,
            num_tokens: int,
            uniform_token_count: int | None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            # A batch whose requests have different numbers of tokens gets no graph of a whole decode step.
            count = uniform_token_count if may_be_whole() else None
            found = dispatch(num_reqs, num_tokens, count, *args, **kwargs)
            self._whole = found.cg_mode == CUDAGraphMode.FULL
            return found

        def executing(execute_model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self._whole = False
            if self.runner.cudagraph_manager is not None:  # a new one after every capture
                patches.wrap(self.runner.cudagraph_manager, "dispatch", dispatching)
            try:
                return execute_model(*args, **kwargs)
            finally:
                finish()
                self._batch = None

        patches.wrap(self.runner, "finish_requests", finishing)
        patches.wrap(self.runner.model_state, "preprocess_state", preparing)
        patches.wrap(self.runner, "execute_model", executing)

    @property
    def whole(self) -> bool:
        return self._whole

    def buffers(self) -> tuple[Int[torch.Tensor, " row"], Int[torch.Tensor, " row"]]:
        return self.runner.input_buffers.input_ids, self.runner.input_buffers.positions

    def starting(self, scheduler_output: Any) -> dict[str, Any]:
        return {new.req_id: new.sampling_params for new in scheduler_output.scheduled_new_reqs}

    def layout(self) -> PassLayout:
        batch, n = self._batch, self._batch.num_reqs
        # Not `prefill_len`, which counts what a preempted request had written already.
        prompt = self.runner.req_states.prompt_len.np[batch.idx_mapping_np]
        return PassLayout(
            batch.req_ids, batch.query_start_loc_np[: n + 1], batch.num_computed_tokens_np[:n], prompt
        )

    def tokens(self) -> Int[torch.Tensor, " token"]:
        return self._batch.input_ids

    def block_table(self, group: int) -> Int[torch.Tensor, "request block"]:
        # Gathered for every pass in the order of its batch; the same memory each time.
        return self.runner.block_tables.input_block_tables[group]

    def kernel_block_size(self, group: int) -> Any:
        return self.runner.kernel_block_sizes[group]
