"""Where the time of a step in vLLM goes: microseconds and tensor operations of each part of the plugin.

    VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 python benchmarks/step_parts.py --out benchmarks/results/NAME.jsonl

Prompts, policies and engine are those of vllm_engine.py. Wall time of each part in the fastest of several generations,
less what the clock takes; operations are counted in one generation more. On a CPU only: elsewhere a part does not wait
for its operations.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from reporting import measured_on, parser, publish, table
from torch.utils._python_dispatch import TorchDispatchMode
from workload import SHAPES, treatments

from normprobe.console import run_main


class Parts(TorchDispatchMode):
    """Which part is at work: its calls, its time and, while the mode is on, its tensor operations."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[str] = []
        self.calls: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.at:
            self.operations[self.at[-1]] += 1
        return function(*args, **(kwargs or {}))

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, whose time counts for this part and for no other that calls it."""

        @wraps(method)
        def timing(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self.at.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                self.at.pop()
                self.calls[part] += 1
                taken = time.perf_counter() - begun
                self.seconds[part] += taken
                if self.at:
                    self.seconds[self.at[-1]] -= taken

        return timing

    def clear(self) -> None:
        """Forget what was measured."""
        for kept in (self.calls, self.seconds, self.operations):
            kept.clear()


@contextmanager
def watched(parts: Parts) -> Iterator[list[str]]:
    """The parts of the plugin, watched in all engines that are made in the block."""
    from normprobe.engines.vllm.core.scheduling import CoreExtension
    from normprobe.engines.vllm.worker.runner_hooks import RunnerHooks

    methods = {
        "requests that start and end": (RunnerHooks, "_update"),
        "rows of the policy": (RunnerHooks, "_begin"),
        "hooks after blocks": (RunnerHooks, "_change"),
        "the policy at its layers": (RunnerHooks, "_apply"),
        "histories, all layers at once": (RunnerHooks, "_finish"),
        "results": (CoreExtension, "complete"),
    }
    before = {part: getattr(owner, name) for part, (owner, name) in methods.items()}
    for part, (owner, name) in methods.items():
        setattr(owner, name, parts.timed(part, before[part]))
    try:
        yield list(methods)
    finally:
        for part, (owner, name) in methods.items():
            setattr(owner, name, before[part])


def clock_seconds() -> float:
    """What a call of a method that does nothing seems to take."""
    parts = Parts()
    nothing = parts.timed("nothing", lambda: None)
    for _ in range(10_000):
        nothing()
    return parts.seconds["nothing"] / 10_000


def measure(
    serve: Callable[[], Callable[[Any], object]], policies: Mapping[str, Any], rounds: int, n_steps: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By policy and part what a step takes: "us" and "operations".

    serve: makes an engine and gives what generates under a policy, in so many steps. rounds: generations to time.
    """
    parts, clock = Parts(), clock_seconds()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with watched(parts) as names:
        generate = serve()
        for policy_name, policy in policies.items():
            generate(policy)  # warms up
            seconds: dict[str, list[float]] = {part: [] for part in names}
            for _ in range(rounds):
                parts.clear()
                generate(policy)
                for part in names:
                    seconds[part].append(parts.seconds[part] - clock * parts.calls[part])
            parts.clear()
            with parts:
                generate(policy)
            found[policy_name] = {
                part: {
                    "us": 1e6 * max(0.0, min(seconds[part])) / n_steps,
                    "operations": parts.operations[part] / n_steps,
                }
                for part in names
            }
    return found


def as_markdown(result: Mapping[str, Any]) -> str:
    """A section with a table: a row for each kind of requests, a column for each part."""
    rows = []
    for name, parts in result["parts"].items():
        us, operations = ([part[quantity] for part in parts.values()] for quantity in ("us", "operations"))
        cells = zip([*us, sum(us)], [*operations, sum(operations)], strict=True)
        rows.append([name, *(f"{taken:.0f} ({called:.0f})" for taken, called in cells)])
    titles = next(iter(result["parts"].values()))
    return (
        f"## Parts of a step: {result['model']} in vLLM (eager), batch {result['batch']}, float32, on "
        f"{result['hardware']}\n\n"
        f"{result['date']}; vllm {result['vllm']}, torch {result['torch']}; µs (tensor operations) of a step, in the "
        f"fastest of {result['rounds']} generations of {result['new_tokens']} tokens.\n\n"
        + table(["requests", *titles, "together"], rows)
    )


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and append to NAME.jsonl and NAME.md."""
    options = parser(__doc__)
    options.add_argument("--model", default="tiny-thinker", choices=["tiny-thinker", *SHAPES])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--new-tokens", type=int, default=64)
    options.add_argument("--batch", type=int, default=32)
    arguments = options.parse_args(argv)
    import vllm
    from vllm_engine import Served, engine_options, prepare

    with tempfile.TemporaryDirectory() as folder:
        model, prompts, tau = prepare(arguments.model, arguments.batch, arguments.new_tokens, Path(folder))
        plugin = {"normprobe": f"{folder}/layer_profile.json"}

        def serve() -> Callable[[Any], object]:
            llm = vllm.LLM(str(model), additional_config=plugin, **engine_options(arguments.batch))
            return Served(llm, prompts, arguments.new_tokens).generate

        parts = measure(serve, {"plain": None, **treatments(tau)}, arguments.rounds, arguments.new_tokens)
    result = {
        **measured_on("cpu"),
        "clock": "wall time",
        **{name: getattr(arguments, name) for name in ("model", "batch", "rounds", "new_tokens")},
        "parts": parts,
    }
    publish(result, as_markdown(result), arguments.out)


if __name__ == "__main__":
    sys.exit(run_main(main))
