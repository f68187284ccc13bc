"""From measured rounds to a result that is kept: the median with its precision, the hardware, the table."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from normprobe.runs.atomic import refusing_disk_errors
from normprobe.runs.environment import environment
from normprobe.stats.bootstrap import percentile_interval

PRECISE = 0.02
"""The largest half-width with which a target, of whatever kind, can be met."""


@dataclass(frozen=True)
class Rounds:
    """Seconds of plain generation and of a treatment by round, and the share of tokens that are the same."""

    plain: Float[np.ndarray, " round"]
    treatment: Float[np.ndarray, " round"]
    same_tokens: float
    graph_skips: int = 0

    @property
    def ratios(self) -> Float[np.ndarray, " round"]:
        return self.treatment / self.plain


def median(
    values: np.ndarray,
    rng: np.random.Generator,
    name: str,
    target: float | None = None,
    *,
    at_least: bool = False,
) -> dict[str, Any]:
    """The median over rounds under `name`, and half the width of its 95 % interval (percentile bootstrap).

    With a target (the most it may be, or `at_least`) also whether it is met, and precisely enough to say so.
    """
    draws = np.median(rng.choice(values, (4000, len(values))), axis=1)
    low, high = percentile_interval(draws)
    found, half_width = float(np.median(values)), float(high - low) / 2
    measured: dict[str, Any] = {name: found, "half_width": half_width}
    if target is None:
        return measured
    within = found >= target if at_least else found <= target
    return measured | {"target": target, "met": within and half_width <= PRECISE}


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark: where its results go."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out", type=Path, help="results/NAME.jsonl; the table goes to NAME.md")
    return options


def measured_on(device: str) -> dict[str, str | None]:
    """What every result begins with: the date, the hardware, the clock and the versions of the packages."""
    versions = environment()["packages"]
    cuda = device.startswith("cuda")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(device) if cuda else _processor(),
        "clock": "synchronised wall time" if cuda else "CPU time of the process",
        **{name: versions[name] for name in ("torch", "transformers", "vllm") if versions[name]},
    }


def publish(result: Mapping[str, Any], markdown: str, out: Path | None) -> None:
    """Print a table; append the result to `out` (JSON lines) and the table to the Markdown file of the same name.

    Raises NormprobeError where the disk does not take them.
    """
    print(markdown, flush=True)
    if out is not None:
        with refusing_disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            for path, text in ((out, json.dumps(result)), (out.with_suffix(".md"), markdown)):
                with path.open("a", encoding="utf-8") as file:
                    file.write(text + "\n")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines) + "\n"


def as_markdown(result: Mapping[str, Any]) -> str:
    """The result of `policies.py` (time relative to plain) or `vllm_engine.py` (throughput): a section with a table."""
    vllm = "vllm" in result
    versions = ", ".join(
        f"{name} {result[name]}" for name in ("vllm", "torch", "transformers") if name in result
    )
    layers = f", {result['n_layers']} layers" if "n_layers" in result else ""
    after = f" after {result['prompt_tokens']}" if "prompt_tokens" in result else ""
    head = (
        f"## {result['model']}{' in vLLM' if vllm else ''} ({result['mode']}){layers}, batch {result['batch']}, "
        f"{result['dtype']}, on {result['hardware']}\n\n"
        f"{result['date']}; {versions}; {result['rounds']} rounds of {result['new_tokens']} tokens{after}; "
        f"clock: {result['clock']}; plain: {result['plain_ms_per_step']:.2f} ms per step.\n\n"
    )
    extra = {
        "bytes_per_request": "bytes per request",
        "same_tokens": "same tokens",
        "graph_skips": "graphs skipped",
    }
    extra = {key: title for key, title in extra.items() if key in result}
    rows = []
    for name, row in result["ratios"].items():
        target = f"{'≥' if vllm else '≤'} {row['target']:.2f}" if "target" in row else ""
        more = [_cell(result[key].get(name)) for key in extra]
        rows.append([name, f"{row['ratio']:.3f}", f"{row['half_width']:.3f}", target, _verdict(row), *more])
    measure = "throughput relative to plain" if vllm else "time relative to plain"
    body = table(["treatment", measure, "half-width", "target", "", *extra.values()], rows)
    return head + body + _floor(result.get("alrr_10_against_floor"))


def _floor(floor: Mapping[str, Any] | None) -> str:
    if floor is None:
        return ""
    aim = f"; target ≤ {floor['target']}: {_verdict(floor)}" if "target" in floor else ""
    return (
        f"\nExtra time of alrr_10, which triggers at {100 * floor['triggered_share']:.0f} % of the rows of its layers: "
        f"{floor['extra_by_floor']:.2f} ± {floor['half_width']:.2f} of its floor of {floor['forced_passes']} passes at "
        f"{floor['layer_pass_us']:.0f} µs (rows in each: {floor['rows_per_forced_pass']}){aim}.\n"
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _verdict(row: Mapping[str, Any]) -> str:
    return "" if "met" not in row else "met" if row["met"] else "not met"


def _processor() -> str:
    """The processor's name where Linux gives it, else the architecture; cores, and the threads that torch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    name = f"{names[0]}, {len(names)} cores" if names else platform.machine()
    return f"{name} ({threads} thread{'s' * (threads > 1)})"
