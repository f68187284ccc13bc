"""vLLM's V1 model runner (`vllm.v1.worker.gpu_model_runner`, also the CPU's), as `WatchedRunner`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.worker.eligible_rows import PassLayout
from normprobe.engines.vllm.worker.runner import WatchedRunner


class RunnerV1(WatchedRunner):
    """Wraps `_update_states`, which says which requests start and end, and `_model_forward`, one pass."""

    def watch(
        self, update: Callable[[Any], None], begin: Callable[[], None], finish: Callable[[], None]
    ) -> None:
        def updating(update_states: Callable[..., Any], scheduler_output: Any) -> Any:
            update(scheduler_output)
            return update_states(scheduler_output)

        def forwarding(model_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            begin()
            try:
                return model_forward(*args, **kwargs)
            finally:
                finish()

        patches.wrap(self.runner, "_update_states", updating)
        patches.wrap(self.runner, "_model_forward", forwarding)

    def starting(self, scheduler_output: Any) -> dict[str, Any]:
        parameters = {new.req_id: new.sampling_params for new in scheduler_output.scheduled_new_reqs}
        for request in scheduler_output.scheduled_cached_reqs.resumed_req_ids:
            parameters[request] = self.runner.requests[request].sampling_params
        return parameters

    def layout(self) -> PassLayout:
        batch = self.runner.input_batch
        n = batch.num_reqs
        return PassLayout(
            batch.req_ids,
            self.runner.query_start_loc.np[: n + 1],
            batch.num_computed_tokens_cpu[:n],
            batch.num_prompt_tokens[:n],
        )

    def tokens(self) -> Int[torch.Tensor, " token"]:
        # The runner's own: a model that takes embeddings is given no tokens.
        return self.runner.input_ids.gpu

    def block_table(self, group: int) -> Int[torch.Tensor, "request block"]:
        batch = self.runner.input_batch
        return batch.block_table[group].get_device_tensor(max(batch.num_reqs, 1))

    def kernel_block_size(self, group: int) -> Any:
        return self.runner._kernel_block_sizes[group]
