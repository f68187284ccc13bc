"""What policies cost in vLLM, as throughput relative to plain requests in one run.

    VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 python benchmarks/vllm_engine.py --out benchmarks/results/NAME.jsonl

Two engines of this process, alike and with the plugin, serve the same prompts at the same time: one plain requests, the
other requests under a policy, in turns of a tenth of a second (at least one step of the engine), so that what slows the
machine slows both. In a round each treatment runs twice, the second time with the two engines exchanged, so that where
an engine lies in memory does not matter. Reported: the median of the ratios of the rounds, and half the width of its
95 % interval (percentile bootstrap over the rounds). The clock counts the process's own CPU time on a CPU, and wall
time between synchronisations on CUDA, where a turn lasts to the end. "no plugin": plain requests in an engine without
it, which has no counterpart to be exchanged with. Where the time of a step goes: step_parts.py. Models: tiny-thinker
(2 M parameters: mostly shows what a step costs in Python) and random weights in published shapes. (Not named vllm.py:
that would hide the module.)
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # read at import

import numpy as np
import torch
import vllm
from jaxtyping import Float
from reporting import as_markdown, measured_on, median, publish
from workload import (
    SHAPES,
    SMALLEST,
    block_seconds,
    clock,
    make_workload,
    measure_profile,
    treatments,
    workload_parser,
)

from normprobe.console import run_main
from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.models.architectures import find_blocks
from normprobe.problems import bundled

TARGETS = {"probe": 0.97, "alrr_0": 0.97, "erss": 0.95}
SMALLEST_TARGET = 0.98
FLOOR_TARGET = 1.5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TURN = math.inf if DEVICE.type == "cuda" else 0.1
"""Seconds."""


def prepare(
    name: str, batch: int, new_tokens: int, folder: Path
) -> tuple[Path, list[list[int]], dict[int, float]]:
    """The model on disk, prompts, and τ: for a quarter of the layers, up to the last but one, the norm that a tenth of
    their tokens exceed. The layer profile of the model's own plain generation goes to the folder."""
    workload = make_workload(name, "cpu", "float32", batch, new_tokens)
    profile, norm = measure_profile(workload)
    config, n_layers = workload.model.config, workload.n_layers
    shape = {"n_layers": n_layers, "d_model": config.hidden_size, "vocab": config.vocab_size}
    replace(profile, model=shape).save(folder / "layer_profile.json")
    model = folder
    if name in SHAPES:
        workload.model.save_pretrained(folder)
    else:
        model = bundled.find(name).folder
    prompts = [
        [token for token, kept in zip(ids, mask, strict=True) if kept]
        for ids, mask in zip(workload.ids.tolist(), workload.mask.tolist(), strict=True)
    ]
    quarter = range(n_layers - 1 - n_layers // 4, n_layers - 1)
    tau = {layer: float(np.quantile(norm[layer], 0.9)) for layer in quarter}
    return model, prompts, tau


def engine_options(batch: int) -> dict[str, Any]:
    """How the engines are started."""
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": batch,
        "enable_prefix_caching": False,  # requests under a policy read none
        "skip_tokenizer_init": True,
    }


@dataclass(frozen=True)
class Served:
    """An engine in this process and its prompts; each request writes `new_tokens` tokens."""

    llm: Any
    prompts: list[list[int]]
    new_tokens: int

    def steps(self, policy: Any = None, n: int | None = None) -> Iterator[list[list[int]] | None]:
        """Serve the (first n) prompts, one step of the engine at a time; the last item is their tokens, others None."""
        engine = self.llm.llm_engine
        params = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=self.new_tokens,
            ignore_eos=True,
            detokenize=False,
            extra_args=None if policy is None else {"normprobe": policy},
        )
        names = [str(number) for number, _ in enumerate(self.prompts[:n])]
        for name, prompt in zip(names, self.prompts, strict=False):
            engine.add_request(name, {"prompt_token_ids": prompt}, params.clone())
        done: dict[str, list[int]] = {}
        while engine.has_unfinished_requests():
            done |= {
                output.request_id: list(output.outputs[0].token_ids)
                for output in engine.step()
                if output.finished
            }
            yield None
        yield [done[name] for name in names]

    def generate(self, policy: Any = None, n: int | None = None) -> list[list[int]]:
        *_, written = self.steps(policy, n)
        assert written is not None
        return written


def compete(
    one: tuple[Served, Any], other: tuple[Served, Any], rng: np.random.Generator
) -> tuple[tuple[float, float], tuple[list[list[int]], list[list[int]]]]:
    """Seconds and tokens of two runs, each of an engine and a policy, that take turns."""
    runs = [served.steps(policy) for served, policy in (one, other)]
    seconds, tokens = [0.0, 0.0], [[], []]
    going = rng.permutation(2).tolist()
    while going:
        for at in going[:]:
            begun = clock(DEVICE)
            # Reading the clock waits for the device; a turn without an end does not ask for it.
            while math.isinf(TURN) or (taken := clock(DEVICE) - begun) < TURN:
                if (written := next(runs[at])) is not None:
                    taken, tokens[at] = clock(DEVICE) - begun, written
                    going.remove(at)
                    break
            seconds[at] += taken
        going.reverse()
    return (seconds[0], seconds[1]), (tokens[0], tokens[1])


def run_rounds(
    pair: tuple[Served, Served],
    bare: Served,
    policies: Mapping[str, Any],
    rounds: int,
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "round 2"]]:
    """Seconds of plain requests and of each treatment by round, two runs of each; a first round warms up."""
    one, other = pair
    runs = {name: [((one, policy), other), ((other, policy), one)] for name, policy in policies.items()}
    runs["no plugin"] = [((bare, None), one), ((bare, None), other)]
    seconds: dict[str, list[Float[np.ndarray, " 2"]]] = {name: [] for name in runs}
    reference = bare.generate()
    for number in range(rounds + 1):
        for name in rng.permutation(list(runs)):
            taken = np.zeros(2)
            for treatment, partner in runs[name]:
                times, (plain, written) = compete((partner, None), treatment, rng)
                if plain != reference or (name != "erss" and written != reference):
                    raise AssertionError(f"{name} changed what the model wrote")
                taken += times
            if number > 0:
                seconds[name].append(taken)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return {name: np.stack(taken) for name, taken in seconds.items()}


def forced_passes(served: Served, policy: Any) -> list[int]:
    """The number of rows of each extra pass that the policy forces."""
    call, rows = BlockRerun.__call__, []

    def counted(self: BlockRerun, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        if n := int(active.sum()):
            rows.append(n)
        return call(self, active, states)

    BlockRerun.__call__ = counted
    try:
        served.generate(policy)
    finally:
        BlockRerun.__call__ = call
    return rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model at one batch size."""
    rng = np.random.default_rng(arguments.seed)
    options = engine_options(arguments.batch)
    with tempfile.TemporaryDirectory() as folder:
        model, prompts, tau = prepare(arguments.model, arguments.batch, arguments.new_tokens, Path(folder))
        plugin = {"normprobe": f"{folder}/layer_profile.json"}
        one, other, bare = (
            Served(
                vllm.LLM(str(model), additional_config=additional, **options), prompts, arguments.new_tokens
            )
            for additional in (plugin, plugin, {})
        )
        policies, quarter = treatments(tau), list(tau)
        seconds = run_rounds((one, other), bare, policies, arguments.rounds, rng)
        forced = forced_passes(one, policies["alrr_10"])
        rows = max(1, round(sum(forced) / max(len(forced), 1)))
        executor = bare.llm.llm_engine.engine_core.engine_core.model_executor
        runner = executor.driver_worker.worker.model_runner
        _, blocks = find_blocks(runner.get_model(), runner.model_config.hf_text_config.num_hidden_layers)
        once = block_seconds(
            [blocks[layer] for layer in quarter],
            lambda: bare.generate(n=rows),
            DEVICE,
            counts=lambda output: len(output[0]) == rows,  # decoding, one token of each of `rows` requests
        )
    small = arguments.model == SMALLEST and DEVICE.type == "cpu"
    targets = dict.fromkeys(TARGETS, SMALLEST_TARGET) if small else TARGETS
    ratios = {
        name: median(taken[:, 0] / taken[:, 1], rng, "ratio", targets.get(name), at_least=True)
        for name, taken in seconds.items()
    }
    plain, treatment = seconds["alrr_10"].T / 2
    extra = (treatment - plain) / (len(forced) * once)
    return {
        "model": arguments.model,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "new_tokens": arguments.new_tokens,
        "dtype": "float32",
        "mode": "eager",
        "seed": arguments.seed,
        "plain_ms_per_step": 1e3 * float(np.median(plain)) / arguments.new_tokens,
        "ratios": ratios,
        "alrr_10_against_floor": median(extra, rng, "extra_by_floor", FLOOR_TARGET)
        | {
            "layers": quarter,
            "forced_passes": len(forced),
            "rows_per_forced_pass": rows,
            "triggered_share": sum(forced) / (arguments.batch * arguments.new_tokens * len(quarter)),
            "layer_pass_us": 1e6 * once,
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and append to NAME.jsonl and NAME.md."""
    options = workload_parser(__doc__, rounds=9)
    options.add_argument("--batch", type=int, default=32)
    arguments = options.parse_args(argv)
    result = {**measured_on(DEVICE.type), **measure(arguments)}
    publish(result, as_markdown(result), arguments.out)


if __name__ == "__main__":
    sys.exit(run_main(main))
