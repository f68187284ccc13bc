"""What policies cost, as ratios to plain generation in one run: `python benchmarks/policies.py --help`.

eager: each round generates the same prompts once plainly and once per treatment, in an order drawn anew; a ratio is
taken within its round, so that what slows the machine for a while slows both. The time includes putting the hooks on
and off. graphs: the always-on form with a static cache, compiled by generate() into CUDA graphs. Each treatment
compiles once, so its rounds stand in a row, with half of the plain rounds before and half after them; the first steps
are left out.
Reported: the median of the ratios and half the width of its 95 % interval (percentile bootstrap over the rounds). The
clock counts the process's own CPU time on a CPU, and wall time between synchronisations on CUDA.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from reporting import Rounds, as_markdown, measured_on, median, publish
from torch._dynamo.utils import counters
from workload import (
    SETTLING_STEPS,
    SMALLEST,
    Workload,
    block_seconds,
    make_workload,
    measure_profile,
    treatments,
    workload_parser,
)

from normprobe.console import run_main
from normprobe.engines.hf import intervene
from normprobe.layer_profile import LayerProfile
from normprobe.models.architectures import dissect
from normprobe.models.open import DTYPES
from normprobe.policies.policy import Policy
from normprobe.policies.spec import build

TARGETS = {
    "cpu": {"probe": 1.08, "alrr_0": 1.08},
    "cuda": {"probe": 1.02, "probe_all": 1.05, "alrr_0": 1.03, "erss": 1.03},
    SMALLEST: dict.fromkeys(("probe", "alrr_0", "erss"), 1.05),  # on a CPU
}
FLOOR_TARGET = 1.5
"""On CUDA: the extra time of alrr_10 in units of its floor. A layer of the bundled model costs a CPU too little."""
GRAPHS = ("probe", "alrr_0", "erss")
"""The treatments that are worth a compilation each."""


def make_policies(profile: LayerProfile, norm: Float[np.ndarray, "layer token"]) -> dict[str, Policy]:
    """The policies by treatment: those of `treatments` on the profile's layers, and a probe of all layers."""
    tenth = {layer: float(np.quantile(norm[layer], 0.9)) for layer in profile.chosen_layers}
    everywhere = {"probe_all": {"policy": "probe", "layers": list(range(len(profile.tau)))}}
    return {name: build(spec, profile) for name, spec in (treatments(tenth) | everywhere).items()}


def run_eager(
    workload: Workload, policies: Mapping[str, Policy], n_rounds: int, rng: np.random.Generator
) -> dict[str, Rounds]:
    """The rounds of each treatment; one round more, which warms up, is thrown away."""
    everything: list[tuple[str, Policy | None]] = [("plain", None), *policies.items()]
    seconds: dict[str, list[float]] = {name: [] for name, _ in everything}
    same = dict.fromkeys(policies, 1.0)
    reference = workload.generate()
    for number in range(n_rounds + 1):
        for place in rng.permutation(len(everything)):
            name, policy = everything[place]
            begun = workload.clock()
            around = nullcontext() if policy is None else intervene(workload.model, policy, quiet=True)
            with around:
                written = workload.generate()
            taken = workload.clock() - begun
            if policy is not None:
                same[name] = min(same[name], _share(written, reference))
            if number > 0:
                seconds[name].append(taken)
    plain = np.array(seconds["plain"])
    return {name: Rounds(plain, np.array(seconds[name]), same[name]) for name in policies}


def run_graphs(workload: Workload, policies: Mapping[str, Policy], n_rounds: int) -> dict[str, Rounds]:
    """The rounds of each treatment in its always-on form under CUDA graphs; two generations before them warm up."""
    rounds = {}
    for name, policy in policies.items():
        before, reference, _ = _decode(workload, n_rounds - n_rounds // 2)
        with intervene(workload.model, policy, always_on=True, quiet=True):
            during, written, skips = _decode(workload, n_rounds)
        after, _, _ = _decode(workload, n_rounds // 2)
        rounds[name] = Rounds(np.array(before + after), np.array(during), _share(written, reference), skips)
    return rounds


def _decode(workload: Workload, n_rounds: int) -> tuple[list[float], torch.Tensor, int]:
    """Seconds by round, tokens, and how often Inductor gave a CUDA graph up in them."""
    counters.clear()
    rounds = [workload.decode_seconds() for _ in range(2 + n_rounds)][2:]
    return [seconds for seconds, _ in rounds], rounds[-1][1], counters["inductor"]["cudagraph_skips"]


def _share(written: torch.Tensor, reference: torch.Tensor) -> float:
    return float((written == reference).double().mean())


def against_floor(
    workload: Workload, policy: Policy, rounds: Rounds, rng: np.random.Generator
) -> dict[str, Any]:
    """The extra time of alrr_10 in units of its floor: the passes of a layer that any row forced, times what one costs.

    The cost of a pass is that of a layer in plain generation of as many rows as a forced pass has in the mean.
    """
    with intervene(workload.model, policy, quiet=True, record=True) as intervention:
        workload.generate()
    events = intervention.events()
    tried = events.passes > 0
    forced = len(torch.unique(torch.stack([events.step[tried], events.layer[tried]], dim=1), dim=0))
    rows = max(1, round(int(tried.sum()) / max(forced, 1)))
    small = workload.first(rows)
    blocks = [dissect(small.model).blocks[layer] for layer in policy.layers]
    once = block_seconds(blocks, small.generate, small.model.device)
    extra = (rounds.treatment - rounds.plain) / (forced * once)
    target = FLOOR_TARGET if small.model.device.type == "cuda" else None
    return median(extra, rng, "extra_by_floor", target) | {
        "forced_passes": forced,
        "rows_per_forced_pass": rows,
        "triggered_share": int(tried.sum()) / (len(workload.ids) * workload.new_tokens * len(policy.layers)),
        "layer_pass_us": 1e6 * once,
    }


def measure(
    workload: Workload, mode: str, n_rounds: int, targets: Mapping[str, float], rng: np.random.Generator
) -> dict[str, Any]:
    """Everything about one model, one batch size and one mode."""
    profile, norm = measure_profile(workload)
    policies = make_policies(profile, norm)
    state_bytes = workload.model.config.hidden_size * workload.model.dtype.itemsize
    if mode == "graphs":
        policies = {name: policies[name] for name in GRAPHS}
        rounds = run_graphs(workload.compiled(), policies, n_rounds)
    else:
        rounds = run_eager(workload, policies, n_rounds, rng)
    ratios = {
        name: median(measured.ratios, rng, "ratio", targets.get(name)) for name, measured in rounds.items()
    }
    steps = workload.new_tokens - (SETTLING_STEPS if mode == "graphs" else 0)
    result = {
        "mode": mode,
        "batch": len(workload.ids),
        "n_layers": workload.n_layers,
        "rounds": n_rounds,
        "prompt_tokens": workload.ids.shape[1],
        "new_tokens": workload.new_tokens,
        "layers": profile.chosen_layers,
        "plain_ms_per_step": 1e3 * float(np.median(rounds["probe"].plain)) / steps,
        "ratios": ratios,
        "same_tokens": {name: measured.same_tokens for name, measured in rounds.items() if name != "erss"},
        "bytes_per_request": {
            name: policy.cost(state_bytes).bytes_per_slot for name, policy in policies.items()
        },
    }
    if mode == "graphs":
        return result | {"graph_skips": {name: measured.graph_skips for name, measured in rounds.items()}}
    floor = against_floor(workload, policies["alrr_10"], rounds["alrr_10"], rng)
    return result | {"alrr_10_against_floor": floor}


def main(argv: list[str] | None = None) -> None:
    """Measure, and print and append one result per batch size."""
    options = workload_parser(__doc__, rounds=40)
    options.add_argument("--mode", default="eager", choices=["eager", "graphs"])
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float32", choices=list(DTYPES))
    options.add_argument("--batch", type=int, nargs="+", default=[1])
    options.add_argument("--layers", type=int, help="so many of the model's layers, which compile sooner")
    arguments = options.parse_args(argv)
    shared = {**measured_on(arguments.device), "model": arguments.model, "dtype": arguments.dtype}
    workload = make_workload(
        arguments.model,
        arguments.device,
        arguments.dtype,
        max(arguments.batch),
        arguments.new_tokens,
        arguments.layers,
    )
    device = workload.model.device.type
    targets = TARGETS[arguments.model if device == "cpu" and arguments.model in TARGETS else device]
    for batch in arguments.batch:
        rng = np.random.default_rng(arguments.seed)
        measured = measure(workload.first(batch), arguments.mode, arguments.rounds, targets, rng)
        result = {**shared, "seed": arguments.seed, **measured}
        publish(result, as_markdown(result), arguments.out)


if __name__ == "__main__":
    sys.exit(run_main(main))
