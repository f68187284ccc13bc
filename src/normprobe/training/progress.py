"""What every training leaves in its directory: its recipe, and a log of its progress, which is shown as well."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import make_directory


def fix_recipe(out: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe into `out`. Raises NormprobeError if a training by another one is there."""
    make_directory(out)
    file = out / "recipe.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != recipe:
        raise NormprobeError(
            f"expected the recipe of {file}, got another; choose a new --out or the same options"
        )
    file.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


class Progress:
    """The progress of a training: rows of `out/log.csv`, and lines on the screen with the time that is left.

    first: steps that were done before this process began.
    """

    def __init__(self, out: Path, n_steps: int, first: int) -> None:
        self.file, self.n_steps, self.first = out / "log.csv", n_steps, first
        self.start = time.monotonic()

    def report(self, done: int, tokens: int, facts: Mapping[str, str], scores: Mapping[Any, str]) -> None:
        """After `done` steps and `tokens` tokens. scores: mode → accuracy, "" where it was not measured."""
        seconds = time.monotonic() - self.start
        row = {"step": done, "tokens": tokens, "seconds": round(seconds), **facts, **scores}
        begins = not self.file.exists()
        with self.file.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if begins:
                writer.writeheader()
            writer.writerow(row)
        left = seconds / max(done - self.first, 1) * (self.n_steps - done)
        words = [f"{name.replace('_', ' ')} {value}" for name, value in facts.items()]
        words += [f"{mode} {share}" for mode, share in scores.items() if share]
        print(
            f"step {done}/{self.n_steps}  {tokens / 1e6:.2f} M tokens  {'  '.join(words)}  {left / 60:.0f} min left",
            flush=True,
        )
