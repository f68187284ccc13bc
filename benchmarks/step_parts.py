"""Where the time of a step in vLLM goes: microseconds and tensor operations of each part of the plugin."""

# pyright: reportMissingImports=false
from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from normprobe.engines.vllm.core.scheduling import CoreExtension
from normprobe.engines.vllm.worker.runner_hooks import RunnerHooks

PARTS: Mapping[str, tuple[type, str]] = {
    "requests that start and end": (RunnerHooks, "_update"),
    "rows of the policy": (RunnerHooks, "_begin"),
    "hooks after blocks": (RunnerHooks, "_change"),
    "the policy at its layers": (RunnerHooks, "_apply"),
    "histories, all layers at once": (RunnerHooks, "_finish"),
    "results": (CoreExtension, "complete"),
}
"""Part → the method that is it, less what other parts do within."""
RUNS = 5
"""Generations whose time is taken."""


class _Parts(TorchDispatchMode):
    """Which part is at work: its time and, while the mode is on, its tensor operations and what they take."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[str] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, int] = defaultdict(int)
        self.within: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begun = time.perf_counter()  # the process's own time takes as long to read as a small operation
        result = function(*args, **(kwargs or {}))
        if self.at:
            self.within[self.at[-1]] += time.perf_counter() - begun
            self.operations[self.at[-1]] += 1
        return result

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timing(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            self.at.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                taken = time.process_time() - begun
                self.at.pop()
                self.seconds[part] += taken
                if self.at:
                    self.seconds[self.at[-1]] -= taken

        return timing


@contextmanager
def _watched(parts: _Parts) -> Iterator[None]:
    before = {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, parts.timed(part, before[part]))
    try:
        yield
    finally:
        for part, (owner, name) in PARTS.items():
            setattr(owner, name, before[part])


def step_parts(
    serve: Callable[[], Callable[[Any], object]], policies: Mapping[str, Any], n_steps: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By policy and part what a step takes: "us" of CPU time, "operations", and "within_us", the time of these alone.

    serve: makes an engine and gives what generates under a policy, in so many steps.
    """
    parts = _Parts()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with _watched(parts):
        generate = serve()
        for name, policy in policies.items():
            generate(policy)  # warms up
            for kept in (parts.seconds, parts.operations, parts.within):
                kept.clear()
            for _ in range(RUNS):
                generate(policy)
            seconds = dict(parts.seconds)
            with parts:
                generate(policy)
            found[name] = {
                part: {
                    "us": 1e6 * seconds.get(part, 0.0) / (RUNS * n_steps),
                    "operations": parts.operations[part] / n_steps,
                    "within_us": 1e6 * parts.within[part] / n_steps,
                }
                for part in PARTS
            }
    return found
