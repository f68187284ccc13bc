"""Measure trained adapters of smol-thinker on held-out problems and write their model card.

`python -m normprobe.training.smol_thinker.model_card`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from normprobe.console import parse, run_main
from normprobe.errors import NormprobeError
from normprobe.local_files import ADAPTER
from normprobe.models.open import open_model
from normprobe.problems.bundled import HUB
from normprobe.problems.smol_thinker.families import FAMILIES
from normprobe.training.card_tables import percent, table
from normprobe.training.smol_thinker.accuracy import MODES, accuracy, held_out

CARD_SEED = 2026
"""Of the card's problems; no other program draws problems from this seed."""
TRAINED, NEEDED, ROOM = 85, 30, (40, 90)
"""What was asked of the model beforehand, in percent: right in think, think − no_think, think at the hardest level."""


def accuracy_table(answers: pd.DataFrame) -> str:
    """A row per family and level: percent right in both modes, their difference, percent of thoughts that ended."""
    by = answers.groupby(["family", "level", "mode"], sort=False)
    shown = by["right"].agg(percent).unstack()[list(MODES)]
    shown["think − no_think"] = _points(answers, ["family", "level"]).map("{:.0f}".format)
    shown["thoughts closed"] = by["closed"].agg(percent).unstack()["think"]
    return table(shown.reset_index())


def summary(answers: pd.DataFrame) -> str:
    """What was asked of the model beforehand, and how far each family is from it."""
    lines = []
    for family, of_family in answers.groupby("family", sort=False):
        think, no_think = (of_family.loc[of_family["mode"] == mode, "right"] for mode in MODES)
        hardest = of_family[(of_family["mode"] == "think") & (of_family["level"] == of_family["level"].max())]
        points = float(_points(of_family, ["family"]).iloc[0])
        right, room = 100 * think.mean(), 100 * hardest["right"].mean()
        resists = [
            what
            for what, holds in (
                (f"think below {TRAINED} %", right >= TRAINED),
                (f"thinking gains less than {NEEDED} points", points >= NEEDED),
                (f"the hardest level outside {ROOM[0]}–{ROOM[1]} %", ROOM[0] <= room <= ROOM[1]),
            )
            if not holds
        ]
        lines.append(
            f"- {family}: think {percent(think)}, no_think {percent(no_think)}, hardest level "
            f"{percent(hardest['right'])}." + (f" Not as asked: {', '.join(resists)}." if resists else "")
        )
    return "\n".join(lines)


def role_table(answers: pd.DataFrame) -> str:
    """A row per family: what the parser of roles made of the responses, in percent of tokens."""
    counts = answers.groupby("family", sort=False)[["tokens", "read", "shared", "agreeing"]].sum()
    shown = pd.DataFrame(
        {
            "responses": answers.groupby("family", sort=False).size(),
            "tokens": counts["tokens"],
            "with a role": (100 * counts["read"] / counts["tokens"]).map("{:.1f}".format),
            "in a line of the solver": (100 * counts["shared"] / counts["tokens"]).map("{:.1f}".format),
            "there with its role": (100 * counts["agreeing"] / counts["shared"]).map("{:.1f}".format),
        }
    )
    return table(shown.reset_index())


def _points(answers: pd.DataFrame, by: list[str]) -> pd.Series:
    means = 100 * answers.groupby([*by, "mode"], sort=False)["right"].mean().unstack()
    return means["think"] - means["no_think"]


def learning_curve(training: Path) -> str:
    """A row per accuracy check during training: percent right in think by family, and in no_think of all."""
    rows = []
    for file in sorted(training.glob("accuracy_*.csv")):
        checked = pd.read_csv(file)
        think, no_think = (checked[checked["mode"] == mode] for mode in MODES)
        by_family = {name: percent(think.loc[think["family"] == name, "right"]) for name in FAMILIES}
        rows.append({"step": checked["step"].iloc[0], **by_family, "no_think": percent(no_think["right"])})
    return table(pd.DataFrame(rows))


def write_card(adapter: Path, *, per_level: int, device: str) -> Path:
    """Measure the adapters of a training and write MODEL_CARD.md and accuracy.csv (right and n) into their folder.

    Raises NormprobeError if the folder holds no adapters.
    """
    if not (adapter / ADAPTER).is_file():
        raise NormprobeError(f"expected trained adapters in {adapter}, got none; train them first")
    opened = open_model(str(adapter), device=device, check=False)
    answers = accuracy(opened.model, opened.tokenizer, held_out(per_level, CARD_SEED))
    counted = answers.groupby(["family", "level", "mode"], sort=False)["right"].agg(right="sum", n="size")
    counted.to_csv(adapter / "accuracy.csv")
    training = adapter.parent
    recipe = json.loads((training / "recipe.json").read_text(encoding="utf-8"))
    card = adapter / "MODEL_CARD.md"
    card.write_text(
        f"# smol-thinker: {training.name}, {adapter.name}\n\n"
        f"LoRA adapters of SmolLM2-135M-Instruct ({HUB}, Apache-2.0), which teach it to think on problems of\n"
        "reasoning-gym between `<think>` and `</think>`, two of its reserved tokens. An instrument, not an\n"
        "assistant.\n\n"
        f"Recipe (see `training/smol_thinker/`): {', '.join(f'{k} {v}' for k, v in recipe.items())}.\n\n"
        f"## Accuracy\n\nGreedy, percent with exact 95 % intervals, {per_level} held-out problems a level. Asked for\n"
        f"beforehand: at least {TRAINED} % in think, at least {NEEDED} points more than in no_think, and room at the\n"
        f"hardest level ({ROOM[0]}–{ROOM[1]} %).\n\n{summary(answers)}\n\n{accuracy_table(answers)}\n\n"
        "## Can the roles of its tokens be read?\n\nOf what the model itself wrote in both modes, percent of tokens.\n"
        "A token has a role where the parser of its family reads its line.\n\n"
        f"{role_table(answers)}\n\n"
        f"## While it was trained\n\nHeld-out problems of all levels, two a level.\n\n{learning_curve(training)}\n",
        encoding="utf-8",
    )
    return card


@dataclass(frozen=True)
class ModelCardCommand:
    """Measure trained adapters of smol-thinker on held-out problems and write their model card."""

    adapter: Path = Path("runs/smol-thinker-sft/final")
    """the folder of the adapters, in the directory of their training"""
    per_level: int = 40
    """problems for each family, level and mode"""
    device: str = "cpu"
    """cpu or cuda"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.smol_thinker.model_card`."""
    command = parse(ModelCardCommand, argv, "describe-smol-thinker")
    print(f"written: {write_card(command.adapter, per_level=command.per_level, device=command.device)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
