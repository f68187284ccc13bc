"""One result as Markdown, and what it was measured on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def as_markdown(result: Mapping[str, Any]) -> str:
    """The tables of one result."""
    lines = [
        f"## {result['model']}, batch {result['batch']}, {result['dtype']}, on {result['hardware']}",
        "",
        f"{result['date']}; torch {result['torch']}, transformers {result['transformers']}; "
        f"{result['rounds']} rounds of {result['new_tokens']} tokens after {result['prompt_tokens']}; clock: "
        f"{result['clock']}; plain: {result['plain_ms_per_step']:.2f} ms per step.",
        "",
        "| treatment | ratio to plain | half-width | target | | bytes per request |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["ratios"].items():
        target = f"≤ {row['target']:.2f}" if "target" in row else ""
        lines.append(
            f"| {name} | {row['ratio']:.3f} | {row['half_width']:.3f} | {target} | {_said(row)} | "
            f"{result['bytes_per_request'][name]:,} |"
        )
    floor, cost = result["alrr_10_against_floor"], result["threshold_us_per_step_and_layer"]
    aim = f"; target ≤ {floor['target']}: {_said(floor)}" if "target" in floor else ""
    lines += [
        "",
        f"Extra time of alrr_10: {floor['extra_by_floor']:.2f} ± {floor['half_width']:.2f} of its floor of "
        f"{floor['forced_passes']} passes at {floor['layer_pass_us']:.0f} µs (rows in each: "
        f"{floor['rows_per_forced_pass']}{aim}). A threshold costs {cost['fixed']:.1f} µs per step and layer fixed, "
        f"{cost['adaptive']:.1f} µs adaptive.",
        "",
    ]
    return "\n".join(lines)


def _said(row: Mapping[str, Any]) -> str:
    return "" if "met" not in row else "met" if row["met"] else "not met"


def hardware(device: str) -> str:
    """The accelerator's name, or the processor's with the cores there are and the threads that torch uses."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()} ({torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)})"


def _processor() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
