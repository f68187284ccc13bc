"""What the hooks need of a model runner of vLLM, of which there are two: see runner_v1.py and runner_v2.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int

from normprobe.engines.vllm.worker.eligible_rows import PassLayout


class WatchedRunner(ABC):
    """A model runner whose passes are watched.

    runner: vLLM's own.
    """

    def __init__(self, runner: Any) -> None:
        self.runner = runner

    @abstractmethod
    def watch(
        self,
        update: Callable[[Any], None],
        begin: Callable[[], None],
        finish: Callable[[], None],
        may_be_whole: Callable[[], bool],
    ) -> None:
        """From now on call these functions: `update` with the scheduler's output before it is acted on, `begin` before
        the model runs on requests and `finish` after it ran; `may_be_whole` says whether the next step may be one CUDA
        graph."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether the pass under way is one CUDA graph."""

    @abstractmethod
    def buffers(self) -> tuple[Int[torch.Tensor, " row"], Int[torch.Tensor, " row"]]:
        """Tokens and positions of every pass, by row, each in the same memory for good."""

    @abstractmethod
    def starting(self, scheduler_output: Any) -> Mapping[str, Any]:
        """The sampling parameters of the requests that start, or start again after they were preempted."""

    @abstractmethod
    def layout(self) -> PassLayout:
        """The requests of the pass under way."""

    @abstractmethod
    def tokens(self) -> Int[torch.Tensor, " token"]:
        """The tokens of the pass under way, on the device."""

    @abstractmethod
    def block_table(self, group: int) -> Int[torch.Tensor, "request block"]:
        """The blocks of one cache group, of the requests in the order of the pass under way."""

    @abstractmethod
    def kernel_block_size(self, group: int) -> Any:
        """The size of a block as the attention of a cache group counts it."""
