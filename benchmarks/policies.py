"""What policies cost, as ratios to plain generation in one run: `python benchmarks/policies.py --help`.

Each round generates the same prompts once plainly and once per treatment, in an order drawn anew; a ratio is taken
within its
round, so that what slows the machine for a while slows both. Reported: the median of the ratios and half the width of
its 95 % interval (percentile bootstrap over the rounds). The clock counts the process's own CPU time on a CPU, and wall
time between synchronisations on CUDA. The time includes putting the hooks on and taking them off.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import median, meets, publish
from subjects import SHAPES, Subject, make_subject, measure_profile
from tables import as_markdown, hardware

from normprobe.console import run_main
from normprobe.engines.hf import intervene
from normprobe.layer_profile import LayerProfile
from normprobe.models.architectures import dissect
from normprobe.models.open import DTYPES
from normprobe.policies.alrr import ALRR
from normprobe.policies.erss import ERSS
from normprobe.policies.probe import Probe
from normprobe.policies.rows import Policy
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold
from normprobe.runs.environment import environment

TARGETS = {
    "cpu": {"probe": 1.08, "alrr_0": 1.08},
    "cuda": {"probe": 1.02, "probe_all": 1.05, "alrr_0": 1.03, "erss": 1.03},
}
FLOOR_TARGET = 1.5
"""On CUDA: the extra time of alrr_10 in units of its floor. A layer of the bundled model costs a CPU too little."""


def make_treatments(profile: LayerProfile, norm: np.ndarray) -> dict[str, Policy]:
    """The policies by treatment. alrr_0 compares every norm with an adaptive τ that is out of reach. alrr_10 tries an
    extra
    pass at a tenth of the rows of the profile's layers and throws every one away, so that the share stays a tenth."""
    adaptive = AdaptiveThreshold.of(profile)
    tenth = {layer: float(np.quantile(norm[layer], 0.9)) for layer in profile.chosen_layers}
    return {
        "probe": Probe(adaptive),
        "probe_all": Probe(AdaptiveThreshold.of(profile, range(len(profile.tau)))),
        "alrr_0": ALRR(dataclasses.replace(adaptive, k=1e6)),
        "erss": ERSS(adaptive),
        "alrr_10": ALRR(FixedThreshold(tenth), blow_up=1e6, growth=1e6),
    }


def run_rounds(
    subject: Subject, treatments: Mapping[str, Policy], rounds: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Seconds per round of each treatment and of `plain`; one round more, which warms up, is thrown away."""
    everything: list[tuple[str, Policy | None]] = [("plain", None), *treatments.items()]
    seconds: dict[str, list[float]] = {name: [] for name, _ in everything}
    reference = subject.generate()
    for number in range(rounds + 1):
        for place in rng.permutation(len(everything)):
            name, policy = everything[place]
            begun = subject.clock()
            around = nullcontext() if policy is None else intervene(subject.model, policy, quiet=True)
            with around:
                written = subject.generate()
            taken = subject.clock() - begun
            if name != "erss" and not torch.equal(written, reference):
                raise AssertionError(f"{name} changed what the model wrote")
            if number > 0:
                seconds[name].append(taken)
    return seconds


def ratio(treatment: list[float], plain: list[float], rng: np.random.Generator) -> dict[str, float]:
    """Median of the ratios within rounds, and half the width of its 95 % interval."""
    return median(np.array(treatment) / np.array(plain), rng, "ratio")


def against_floor(
    subject: Subject, policy: Policy, seconds: Mapping[str, list[float]], rng: np.random.Generator
) -> dict[str, float]:
    """The extra time of alrr_10 in units of its floor: the passes of a layer that any row forced, times what one costs.

    The cost of a pass is that of a layer in plain generation of as many rows as a forced pass has in the mean.
    """
    with intervene(subject.model, policy, quiet=True, record=True) as intervention:
        subject.generate()
    events = intervention.events()
    tried = events.passes > 0
    forced = len(torch.unique(torch.stack([events.step[tried], events.layer[tried]], dim=1), dim=0))
    rows = max(1, round(int(tried.sum()) / max(forced, 1)))
    once = layer_seconds(subject, policy.layers, rows)
    floor = forced * once
    extra = (np.array(seconds["alrr_10"]) - np.array(seconds["plain"])) / floor
    return median(extra, rng, "extra_by_floor") | {
        "forced_passes": forced,
        "rows_per_forced_pass": rows,
        "triggered_share": int(tried.sum()) / (len(subject.ids) * subject.new_tokens * len(policy.layers)),
        "layer_pass_us": 1e6 * once,
    }


def layer_seconds(subject: Subject, layers: tuple[int, ...], rows: int) -> float:
    """Median time of one of these layers on one token of each of `rows` requests, in plain generation."""
    begun, taken = [0.0], []

    def after(_block: object, _args: object, output: object) -> None:
        taken.append(subject.clock() - begun[0])

    def before(_block: object, _args: object) -> None:
        begun[0] = subject.clock()

    blocks = dissect(subject.model).blocks
    handles = [blocks[layer].register_forward_pre_hook(before) for layer in layers]
    handles += [blocks[layer].register_forward_hook(after) for layer in layers]
    for _ in range(3):
        subject.generate(rows)
    for handle in handles:
        handle.remove()
    return float(np.median(taken))


def memory_per_request(subject: Subject, policy: Policy) -> int:
    """Bytes that a policy keeps for each further request, from the tensors it holds after a generation."""
    held = []
    for n in (1, 2):
        small = dataclasses.replace(
            subject, ids=subject.ids[:1].repeat(n, 1), mask=subject.mask[:1].repeat(n, 1)
        )
        with intervene(small.model, policy, quiet=True) as intervention:
            small.generate()
        held.append(sum(_storages(intervention.running).values()))
    return held[1] - held[0]


def _storages(value: object) -> dict[int, int]:
    """Bytes by storage of all tensors that an object holds; what it shares is counted once."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()}
    parts = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    )
    if parts is None:
        parts = vars(value).values() if hasattr(value, "__dict__") else ()
    return {at: size for part in parts for at, size in _storages(part).items()}


def threshold_cost(subject: Subject, profile: LayerProfile, steps: int = 200) -> dict[str, float]:
    """Microseconds per step and layer to read τ, show the norms and update, for all layers at once."""
    device, rows = subject.model.device, len(subject.ids)
    slot, eligible = torch.arange(rows, device=device), torch.ones(rows, dtype=torch.bool, device=device)
    norm = [torch.full((rows,), tau, device=device) for tau in profile.tau]
    layers = range(len(profile.tau))
    cost = {}
    for name, threshold in (
        ("fixed", FixedThreshold.of(profile, layers)),
        ("adaptive", AdaptiveThreshold.of(profile, layers)),
    ):
        state = threshold.start(rows, device)
        taken = []
        for _ in range(steps):
            begun = subject.clock()
            for layer in layers:
                state.tau(layer, slot)
                state.see(layer, slot, norm[layer], eligible)
            state.finish()
            taken.append(subject.clock() - begun)
        cost[name] = 1e6 * float(np.median(taken)) / len(layers)
    return cost


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model at one batch size."""
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    subject = make_subject(
        arguments.model, arguments.device, arguments.dtype, arguments.batch, arguments.new_tokens
    )
    profile, norm = measure_profile(subject)
    treatments = make_treatments(profile, norm)
    seconds = run_rounds(subject, treatments, arguments.rounds, rng)
    targets = TARGETS[subject.model.device.type]
    ratios: dict[str, dict[str, Any]] = {}
    for name in treatments:
        ratios[name] = ratio(seconds[name], seconds["plain"], rng)
        if name in targets:
            reached = meets(ratios[name], "ratio", most=targets[name])
            ratios[name] |= {"target": targets[name], "met": reached}
    floor: dict[str, Any] = against_floor(subject, treatments["alrr_10"], seconds, rng)
    if subject.model.device.type == "cuda":
        floor |= {"target": FLOOR_TARGET, "met": meets(floor, "extra_by_floor", most=FLOOR_TARGET)}
    return {
        "model": arguments.model,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "prompt_tokens": subject.ids.shape[1],
        "new_tokens": arguments.new_tokens,
        "dtype": arguments.dtype,
        "seed": arguments.seed,
        "layers": profile.chosen_layers,
        "plain_ms_per_step": 1e3 * float(np.median(seconds["plain"])) / arguments.new_tokens,
        "ratios": ratios,
        "alrr_10_against_floor": floor,
        "bytes_per_request": {
            name: memory_per_request(subject, policy) for name, policy in treatments.items()
        },
        "threshold_us_per_step_and_layer": threshold_cost(subject, profile),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write NAME.json and NAME.md beside it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-thinker", choices=["tiny-thinker", *SHAPES])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results/NAME.json; the table goes to NAME.md")
    arguments = parser.parse_args(argv)
    versions = environment()["packages"]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(arguments.device),
        "torch": versions["torch"],
        "transformers": versions["transformers"],
        "clock": "CPU time of the process" if arguments.device == "cpu" else "synchronised wall time",
        **measure(arguments),
    }
    publish(result, as_markdown(result), arguments.out)


if __name__ == "__main__":
    sys.exit(run_main(main))
