"""What reading responses costs, in time and memory: `python benchmarks/tracing.py --help`.

In one run, for responses of each length: `stacked`, the way it was before it read in bounded memory (eager attention,
all layers' states and logits by softmax); `bounded`, `normprobe.tracing.trace.replay`; `sampled`, the same with the
logit lens on an eighth of the tokens; `floor`, one plain forward pass with the model's own attention, and the matrix
products of the lens with an exponential of each logit, which no way of computing entropies can do without.
The clock is CPU time of the process, one thread; memory is the peak of the resident set above the weights, each
measured in a process of its own. `stacked` is left out where its attention weights and states would not fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from reporting import measured_on, parser, publish, table
from transformers import AutoModelForCausalLM

from normprobe.console import run_main
from normprobe.models.architectures import dissect
from normprobe.models.model import OpenModel
from normprobe.models.sites import record_sites
from normprobe.tracing.signals import entropy_energy, entropy_rms, entropy_softmax, norm
from normprobe.tracing.trace import replay

LENGTHS = (512, 2048, 8192)
STACKED_UP_TO = 2048
"""Longer responses' attention weights took 2.4 GB and more in every layer."""


def responses_of(length: int, vocabulary: int) -> pd.DataFrame:
    """One response of random tokens: what they are changes no cost."""
    ids = np.random.default_rng(0).integers(vocabulary, size=length)
    return pd.DataFrame({"split": ["measure"], "token_ids": [ids]})


@torch.no_grad()
def read_stacked(opened: OpenModel, ids: torch.Tensor) -> None:
    """All layers' states at once, eager attention, and a softmax of the logits of 2²³ at a time."""
    opened.model.set_attn_implementation("eager")

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)

    def keep(_module: object, _inputs: object, output: Any) -> None:
        entropy(output[1]).mean(dim=-2)

    handles = [block.self_attn.register_forward_hook(keep) for block in opened.blocks]  # type: ignore[operator, union-attr]
    with record_sites(opened) as sites:
        opened.model.base_model(input_ids=ids, use_cache=False)
        states = torch.stack([state[0].float() for state in sites.states])
    for handle in handles:
        handle.remove()
    for signal in (norm, entropy_softmax, entropy_rms, entropy_energy):
        torch.stack([signal(h) for h in states])
    size = 2**23 // opened.anatomy.vocabulary
    for start in range(0, states.shape[1], size):
        for h in states:
            entropy(torch.softmax(opened.unembed(h[start : start + size]), dim=-1))


@torch.no_grad()
def read_floor(opened: OpenModel, ids: torch.Tensor) -> None:
    """One plain forward pass, and the lens's own arithmetic for every layer in blocks that stay in the cache."""
    h = opened.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    rows, entries, vocabulary = 512, 2048, opened.anatomy.vocabulary
    for _ in opened.blocks:
        normed = opened.anatomy.normed(h)
        for start in range(0, len(h), rows):
            for first in range(0, vocabulary, entries):
                opened.anatomy.logits(normed[start : start + rows], slice(first, first + entries)).exp_()


def ways(opened: OpenModel, length: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    table = responses_of(length, opened.anatomy.vocabulary)
    ids = torch.from_numpy(table["token_ids"][0])[None]
    return {
        "floor": lambda: read_floor(opened, ids),
        "bounded": lambda: replay(opened, table, progress=False),
        "sampled": lambda: replay(opened, table, lens_tokens=length // 8, progress=False),
        "stacked": lambda: read_stacked(opened, ids),
    }


def measure_one(model: str, way: str, length: int) -> dict[str, float]:
    """CPU seconds, and peak bytes above those of the open model, of one way in this process."""
    torch.set_num_threads(1)
    opened = _opened(model)
    ways(opened, 16)[way]()  # what the first call alone needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    begin = time.process_time()
    ways(opened, length)[way]()
    seconds = time.process_time() - begin
    return {"seconds": seconds, "peak": float(_status("VmHWM") - before)}


def _opened(name: str) -> OpenModel:
    """Any decoder; it is given token ids, so that it needs no modes of thinking."""
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    return OpenModel(model, None, dissect(model), None, None)  # type: ignore[arg-type]


def _status(name: str) -> int:
    """Bytes that Linux tells of this process: VmRSS is resident now, VmHWM the most since `clear_refs`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("model", help="a directory; its context must hold the longest response")
    options.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    options.add_argument("--one", nargs=2, metavar=("WAY", "LENGTH"), help=argparse.SUPPRESS)
    given = options.parse_args(argv)
    if given.one:
        print(json.dumps(measure_one(given.model, given.one[0], int(given.one[1]))))
        return 0
    found = []
    for length in given.lengths:
        for way in ("floor", "bounded", "sampled", "stacked"):
            if way == "stacked" and length > STACKED_UP_TO:
                continue
            command = [sys.executable, __file__, given.model, "--one", way, str(length)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append({"length": length, "way": way, **json.loads(output.splitlines()[-1])})
    result = {**measured_on("cpu"), "model": Path(given.model).name, "found": found}
    publish(result, as_markdown(result), given.out)
    return 0


def as_markdown(result: dict[str, Any]) -> str:
    """A section with a table: a row per length and way."""
    seconds = {(row["length"], row["way"]): row["seconds"] for row in result["found"]}
    rows = []
    for row in result["found"]:
        length, way = row["length"], row["way"]
        stacked = seconds.get((length, "stacked"))
        rows.append(
            [
                f"{length:,}",
                way,
                f"{length / row['seconds']:.1f}",
                f"{row['seconds'] / seconds[length, 'floor']:.2f}",
                f"{stacked / row['seconds']:.1f}" if stacked else "",
                f"{row['peak'] / 2**30:.2f}",
            ]
        )
    head = (
        f"## Tracing {result['model']}, float32, on {result['hardware']}\n\n{result['date']}; torch {result['torch']}, "
        f"transformers {result['transformers']}; clock: {result['clock']}, one thread.\n\n"
    )
    columns = ["tokens", "way", "tokens/s per core", "time/floor", "stacked/time", "peak above weights, GiB"]
    return head + table(columns, rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
