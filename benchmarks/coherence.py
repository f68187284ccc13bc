"""Time and peak memory of A1 (cosines between all atoms) for a wide random dictionary: no Gram matrix is ever held.

python benchmarks/coherence.py --device cuda --atoms 65536 --width 4096
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from reporting import measured_on, parser, publish, table

from normprobe.console import run_main
from normprobe.theory.orthogonality import coherence, random_baseline


def main(argv: list[str] | None = None) -> None:
    """Measure twice, print and append the second measurement; the first one warms up."""
    options = parser(__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--atoms", type=int, default=4096)
    options.add_argument("--width", type=int, default=256)
    arguments = options.parse_args(argv)
    device, n, d = torch.device(arguments.device), arguments.atoms, arguments.width
    atoms = torch.randn(n, d, generator=torch.Generator(device).manual_seed(0), device=device)
    cuda = device.type == "cuda"
    coherence(atoms)
    begun = time.perf_counter()
    found = coherence(atoms)  # its sums come to the host, so nothing is left to wait for
    seconds = time.perf_counter() - begun
    # Of the process on a CPU: Linux counts its peak in KiB.
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    result = {
        **measured_on(arguments.device),
        "atoms": n,
        "width": d,
        "seconds": seconds,
        "teraflops": n * (n + 1) * d / seconds / 1e12,
        "peak_gib": peak / 2**30,
        "gram_gib": 4 * n * n / 2**30,
        "mean_abs": found.mean_abs,
        "random_baseline": random_baseline(d),
    }
    publish(result, as_markdown(result), arguments.out)


def as_markdown(result: Mapping[str, Any]) -> str:
    """A section with a table of its numbers."""
    rows = [[key, f"{value:.4g}"] for key, value in result.items() if isinstance(value, float)]
    head = f"## Coherence of {result['atoms']:,} × {result['width']:,}, on {result['hardware']}\n\n"
    return head + table(["", ""], rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
