"""Every ratio that results/ holds, in one table: `make bench`. It reads the JSON lines alone and measures nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
HEAD = ("results", "measured on", "what", "ratio", "±", "asked", "")
Row = tuple[str, ...]


def rows(file: Path) -> Iterator[Row]:
    """The ratios of one file, in its order: time or throughput relative to plain generation, an autoencoder trainer's
    time relative to normprobe's, a way of tracing relative to a forward pass alone, speed of vLLM relative to
    Transformers."""
    for line in file.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        model = " ".join(str(result[key]) for key in ("model", "mode", "dtype") if key in result)
        batch = f", batch {result['batch']}" if "batch" in result else ""
        place = file.stem, f"{model}{batch}, {result['hardware']}".removeprefix(", ")
        yield from ((*place, *row) for row in _ratios(result))


def _ratios(result: Mapping[str, Any]) -> Iterator[Row]:
    faster = "vllm" in result
    what = "throughput" if faster else "time"
    for name, row in result.get("ratios", {}).items():
        yield _row(f"{what}, {name} / plain", row["ratio"], row, "≥" if faster else "≤")
    if floor := result.get("alrr_10_against_floor"):
        yield _row("extra time of alrr_10 / its passes", floor["extra_by_floor"], floor, "≤")
    for how, row in result.get("responses", {}).items():
        yield _row(f"tokens/s, {how} responses, vLLM / Transformers", row["vllm_by_hf"], row)
    found = result.get("found", ())
    if isinstance(found, dict):
        ours = found["normprobe"]["seconds"]
        for name, row in found.items():
            if name != "normprobe":
                yield _row(
                    f"time, {name} / normprobe",
                    median(a / b for a, b in zip(row["seconds"], ours, strict=True)),
                )
        return
    floors = {row["length"]: row["seconds"] for row in found if row["way"] == "floor"}
    for row in found:
        if row["way"] != "floor":
            yield _row(
                f"time, {row['way']} / a pass alone, {row['length']:,} tokens",
                row["seconds"] / floors[row["length"]],
            )


def _row(what: str, ratio: float, about: Mapping[str, Any] = {}, sign: str = "") -> Row:
    width = f"{about['half_width']:.3f}" if "half_width" in about else ""
    if "target" not in about:
        return what, f"{ratio:.3f}", width, "", ""
    return what, f"{ratio:.3f}", width, f"{sign} {about['target']:.2f}", "met" if about["met"] else "not met"


def table(results: Path = RESULTS) -> str:
    """All rows as Markdown, aligned."""
    lines = [HEAD, *(row for file in sorted(results.glob("*.jsonl")) for row in rows(file))]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
