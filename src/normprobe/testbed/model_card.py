"""Measure tiny-thinker on held-out problems and write its model card: `python -m normprobe.testbed.model_card`."""

import argparse
import csv
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import binomtest
from tqdm import tqdm
from transformers import AutoTokenizer, Qwen3ForCausalLM

from normprobe.errors import NormprobeError
from normprobe.testbed.accuracy import accuracy
from normprobe.testbed.problems import make_problems
from normprobe.testbed.vocabulary import DOMAINS, MAX_DIFFICULTY

MODES = ("think", "no_think", "filler")
CARD_SEED = 2026  # of the card's problems; no other program draws problems from this seed


def measure(checkpoint: Path, *, per_cell: int, device: str) -> pd.DataFrame:
    """Greedy answers of a checkpoint: one row per mode and problem with domain, difficulty and correct.

    The problems are held out by construction, `per_cell` for each domain and difficulty, the same in every mode.
    """
    if not (checkpoint / "model.safetensors").exists():
        raise NormprobeError(
            f"expected a checkpoint with model.safetensors, got {checkpoint}; train one first"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = Qwen3ForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  typed as unbound
    cells = [(domain, difficulty) for difficulty in range(1, MAX_DIFFICULTY + 1) for domain in DOMAINS]
    parts = []
    for domain, difficulty in tqdm(cells, desc="cells", disable=None):
        problems = make_problems(per_cell, CARD_SEED, domains=[domain], difficulties=[difficulty])
        for mode in MODES:
            right = accuracy(model, tokenizer, problems, mode)
            parts.append(
                pd.DataFrame({"mode": mode, "domain": domain, "difficulty": difficulty, "correct": right})
            )
    return pd.concat(parts, ignore_index=True)


def percent(correct: Iterable[bool]) -> str:
    """Accuracy in percent with its exact 95 % interval (Clopper–Pearson), as in `97 [94, 99]`."""
    outcomes = list(correct)
    result = binomtest(sum(outcomes), len(outcomes))
    interval = result.proportion_ci(confidence_level=0.95)
    return f"{100 * result.statistic:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def accuracy_table(answers: pd.DataFrame, mode: str) -> str:
    """Markdown: a row per domain, a column per difficulty."""
    chosen = answers[answers["mode"] == mode]
    head = "| domain | " + " | ".join(str(d) for d in range(1, MAX_DIFFICULTY + 1)) + " |"
    lines = [head, "|---" * (MAX_DIFFICULTY + 1) + "|"]
    for domain in DOMAINS:
        rows = chosen[chosen["domain"] == domain]
        cells = (percent(rows.loc[rows["difficulty"] == d, "correct"]) for d in range(1, MAX_DIFFICULTY + 1))
        lines.append(f"| {domain} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plateau(log: Path) -> str:
    """Markdown: greedy accuracy by mode as training went on, from the training log."""
    with log.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["think"]]
    lines = ["| step | think | no_think | filler |", "|---|---|---|---|"]
    lines += [f"| {row['step']} | {row['think']} | {row['no_think']} | {row['filler']} |" for row in rows]
    return "\n".join(lines)


def write_card(checkpoint: Path, training: Path, out: Path, *, per_cell: int, device: str) -> None:
    """Measure and write `out` (Markdown) with the answers beside it (`accuracy.csv`: correct and n for each cell)."""
    answers = measure(checkpoint, per_cell=per_cell, device=device)
    cells = answers.groupby(["mode", "domain", "difficulty"])["correct"].agg(correct="sum", n="size")
    cells.to_csv(out.with_name("accuracy.csv"))
    recipe = json.loads((training / "recipe.json").read_text())
    tables = "\n\n".join(f"### {mode}\n\n{accuracy_table(answers, mode)}" for mode in MODES)
    out.write_text(
        "# tiny-thinker\n\n"
        "A `Qwen3ForCausalLM` with 12 layers, d_model 128 and 1.8 M parameters, trained from scratch on the\n"
        "testbed by `python -m normprobe.testbed.train`. It thinks, answers at once, or answers after dots\n"
        "(`filler`), as its chat template asks. It knows nothing but the testbed: an instrument, not an assistant.\n\n"
        f"Recipe (see `recipe.py` for its reasons): {', '.join(f'{k} {v}' for k, v in recipe.items())}.\n\n"
        f"## Accuracy\n\nGreedy, percent with exact 95 % intervals, {per_cell} held-out problems a cell; columns are\n"
        "difficulties (dependent steps). A blind guess is right in 9 % of arithmetic, 13 % of boolean and 2 % of\n"
        "recall problems.\n\n"
        f"{tables}\n\n"
        "## Has every mode reached its plateau?\n\n"
        "Accuracy on 128 held-out problems of all difficulties while training:\n\n"
        f"{plateau(training / 'log.csv')}\n"
    )


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.testbed.model_card`."""
    parser = argparse.ArgumentParser(prog="normprobe.testbed.model_card", description=__doc__)
    parser.add_argument("training", type=Path, help="directory of a finished training run")
    parser.add_argument(
        "--per-cell", type=int, default=200, help="problems for each domain, difficulty and mode"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args(argv)
    card = arguments.training / "MODEL_CARD.md"
    write_card(
        arguments.training / "final",
        arguments.training,
        card,
        per_cell=arguments.per_cell,
        device=arguments.device,
    )
    print(f"written: {card}")


if __name__ == "__main__":
    main()
