"""Tokens per second of a study's responses, through vLLM and through Transformers, in one run.

    OMP_NUM_THREADS=1 python benchmarks/engine_responses.py --out benchmarks/results/NAME.jsonl

Both engines hold the bundled model in this process and answer the same problems in mode think, as the stage responses/
does, greedy and sampled. In a round both answer all of them, in random order; the responses have to be the same. The
clock counts the process's own CPU time on a CPU, and wall time between synchronisations on CUDA. Reported: tokens per
second, and the median over the rounds of vLLM's as a multiple of Transformers' with half the width of its 95 %
interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from reporting import measured_on, median, parser, publish, table
from workload import clock

from normprobe.config import Study
from normprobe.console import run_main
from normprobe.engines.base import Draws, Engine
from normprobe.engines.engine_choice import engine_of
from normprobe.experiments.samples import sample_key
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.models.open import open_for

SAMPLED = {"temperature": 1.0, "draws": Draws(partial(sample_key, 0, 0))}
HOW: dict[str, dict[str, Any]] = {"greedy": {}, "sampled": SAMPLED}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds. Raises AssertionError where the engines write different responses."""
    settings = ModelSettings(arguments.model, engine="vllm", device=arguments.device)
    opened, study = open_for(settings, ThinkingSettings()), Study(model=settings)
    problems = study.source.load({"sae": arguments.problems, "select": 8, "measure": 8}, 0)
    prompts = [opened.chat.prompt_ids(question, "think") for question in problems["question"]]
    rng = np.random.default_rng(0)
    speeds: dict[str, dict[str, list[float]]] = {how: {"hf": [], "vllm": []} for how in HOW}
    with engine_of(opened, ModelSettings()) as hf, engine_of(opened, settings) as vllm:
        engines: dict[str, Engine] = {"hf": hf, "vllm": vllm}
        for number in range(arguments.rounds + 1):
            for how, sampling in HOW.items():
                written: dict[str, list[list[int]]] = {}
                for name in rng.permutation(list(engines)):
                    begun = clock(opened.device)
                    written[name] = engines[name].generate(prompts, study.max_new_tokens, **sampling).tokens
                    taken = clock(opened.device) - begun
                    if number > 0:  # a first round warms up
                        speeds[how][name].append(sum(map(len, written[name])) / taken)
                if written["hf"] != written["vllm"]:
                    raise AssertionError(f"the engines wrote different responses, {how}")
            print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
    return {
        **measured_on(opened.device.type),
        "model": arguments.model,
        "dtype": "float32",
        "problems": len(prompts),
        "rounds": arguments.rounds,
        "responses": {
            how: {name: float(np.median(of[name])) for name in of}
            | median(np.array(of["vllm"]) / np.array(of["hf"]), rng, "vllm_by_hf")
            for how, of in speeds.items()
        },
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """A section with a table."""
    head = (
        f"## Responses of {result['model']}, {result['problems']} problems, {result['dtype']}, "
        f"on {result['hardware']}\n\n"
        f"{result['date']}; vllm {result['vllm']}, torch {result['torch']}, transformers {result['transformers']}; "
        f"{result['rounds']} rounds; clock: {result['clock']}. The responses of both engines are the same.\n\n"
    )
    rows = [
        [how, f"{of['hf']:,.0f}", f"{of['vllm']:,.0f}", f"{of['vllm_by_hf']:.3f}", f"{of['half_width']:.3f}"]
        for how, of in result["responses"].items()
    ]
    columns = ["responses", "Transformers, tokens/s", "vLLM, tokens/s", "vLLM / Transformers", "half-width"]
    return head + table(columns, rows)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and append to NAME.jsonl and NAME.md."""
    options = parser(__doc__)
    options.add_argument("--model", default="tiny-thinker")
    options.add_argument("--device", default="cpu")
    options.add_argument("--problems", type=int, default=256)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args(argv)
    result = measure(arguments)
    publish(result, as_markdown(result), arguments.out)


if __name__ == "__main__":
    sys.exit(run_main(main))
