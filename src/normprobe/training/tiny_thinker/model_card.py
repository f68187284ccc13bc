"""Measure tiny-thinker on held-out problems and write its model card.

`python -m normprobe.training.tiny_thinker.model_card`."""

import argparse
import json
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from normprobe.errors import NormprobeError
from normprobe.problems.testbed.domains import CROWDED
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.vocabulary import DOMAINS, MAX_DIFFICULTY, THINK, VOCABULARY
from normprobe.training.card_tables import percent, table
from normprobe.training.tiny_thinker.accuracy import accuracy
from normprobe.training.tiny_thinker.recipe import dialogue

MODES = ("think", "no_think", "filler")
CARD_SEED = 2026  # of the card's problems; no other program draws problems from this seed
HARDEST = (7, 8)
COMPUTING = ("arithmetic", "boolean")  # what cannot be recalled or pointed at: here a thought must help


def open_checkpoint(checkpoint: Path, device: str) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Model (eval mode) and tokenizer of a training run's checkpoint. Raises NormprobeError if there is none."""
    if not (checkpoint / "model.safetensors").exists():
        raise NormprobeError(
            f"expected a checkpoint with model.safetensors, got {checkpoint}; train one first"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = Qwen3ForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  typed as unbound
    return model, tokenizer


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, per_cell: int) -> pd.DataFrame:
    """Greedy answers: one row per mode and problem with mode, domain, difficulty and correct.

    The problems are held out by construction, `per_cell` for each domain and difficulty, the same in every mode.
    """
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


def measure_hardest(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, per_cell: int
) -> pd.DataFrame:
    """Answers in think to the hardest problems of each domain, as in training and crowded with distractors.

    Columns distractors ("0–3" or the number), sampled (at temperature 1, else greedy), domain, difficulty, correct.
    """
    parts = []
    for distractors, domain, difficulty in product((None, CROWDED), DOMAINS, HARDEST):
        problems = make_problems(
            per_cell, CARD_SEED, domains=[domain], difficulties=[difficulty], distractors=distractors
        )
        cell = {"distractors": distractors or "0–3", "domain": domain, "difficulty": difficulty}
        for sampled in (False, True):
            seed = CARD_SEED if sampled else None
            right = accuracy(model, tokenizer, problems, "think", sampling_seed=seed)
            parts.append(pd.DataFrame({**cell, "sampled": sampled, "correct": right}))
    return pd.concat(parts, ignore_index=True)


def room_table(hardest: pd.DataFrame) -> str:
    """A row per number of distractors and way of answering, a column per domain."""
    answers = hardest.assign(answers=hardest["sampled"].map({False: "greedy", True: "sampled"}))
    return table(shares(answers, ["distractors", "answers"], "domain"))


def accuracy_table(answers: pd.DataFrame, mode: str) -> str:
    """A row per domain, a column per difficulty."""
    return table(shares(answers[answers["mode"] == mode], ["domain"], "difficulty"))


def shares(answers: pd.DataFrame, rows: list[str], column: str) -> pd.DataFrame:
    """The percentages right by the columns `rows`, and across by the values of another."""
    cells = answers.groupby([*rows, column], sort=False)["correct"].agg(percent).unstack(sort=False)
    return cells.reset_index()


@torch.inference_mode()
def next_token_accuracy(model: Qwen3ForCausalLM, *, per_cell: int) -> pd.DataFrame:
    """Where a thought goes wrong: one row per token of reference thoughts with domain, role and correct.

    The model reads the reference (so no mistake is inherited) and its likeliest next token is compared. Connectives are
    free choices and are left out.
    """
    rows = []
    for problem in make_problems(per_cell * len(DOMAINS) * MAX_DIFFICULTY, CARD_SEED):
        ids = torch.tensor([dialogue(problem, "think").ids], device=model.device)
        first = int((ids[0] == VOCABULARY.index(THINK)).nonzero()[0]) + 1
        guesses = model(input_ids=ids).logits[0, first - 1 : first - 1 + len(problem.thought)].argmax(dim=-1)
        for token, guess in zip(problem.thought, guesses.tolist(), strict=True):
            if token.role != "connective":
                rows.append((problem.domain, token.role, VOCABULARY[guess] == token.text))
    return pd.DataFrame(rows, columns=["domain", "role", "correct"])


def role_table(tokens: pd.DataFrame) -> str:
    """A row per domain, a column per role, percent of tokens."""
    cells = 100 * tokens.pivot_table(index="domain", columns="role", values="correct")
    return table(cells.map("{:.1f}".format).reset_index())


def summary(answers: pd.DataFrame) -> str:
    """What an instrument must show. think solves its problems, and thinking is needed."""

    think = answers[answers["mode"] == "think"]
    needing = answers[(answers["difficulty"] >= 4) & answers["domain"].isin(COMPUTING)]
    cells = needing.groupby(["mode", "domain", "difficulty"])["correct"].mean()
    gaps = 100 * (cells["think"] - cells["no_think"])
    domain, difficulty = gaps.idxmin()
    easy, hard = (think.loc[think["difficulty"].between(*ends), "correct"] for ends in ((1, 4), (5, 6)))
    return (
        f"- think, difficulty 1–4, all domains: {percent(easy)}.\n"
        f"- think, difficulty 5–6, all domains: {percent(hard)}.\n"
        f"- think less no_think in {' and '.join(COMPUTING)} from difficulty 4 on: {gaps.mean():.0f} points on "
        f"average,\n  {gaps.min():.0f} in the cell where it is least ({domain}, {difficulty})."
    )


def plateau(log: Path) -> str:
    """Greedy accuracy by mode as training went on, from the training log."""
    return table(pd.read_csv(log, dtype=str)[["step", *MODES]].dropna())


def write_card(training: Path, *, per_cell: int, device: str) -> Path:
    """Measure `training`/final and write MODEL_CARD.md there, and accuracy.csv: correct and n for each condition."""
    model, tokenizer = open_checkpoint(training / "final", device)
    answers = measure(model, tokenizer, per_cell=per_cell)
    hardest = measure_hardest(model, tokenizer, per_cell=per_cell)
    thoughts = next_token_accuracy(model, per_cell=max(1, per_cell // 10))
    cells = answers.groupby(["mode", "domain", "difficulty"])["correct"].agg(correct="sum", n="size")
    cells.to_csv(training / "accuracy.csv")
    recipe = json.loads((training / "recipe.json").read_text())
    tables = "\n\n".join(f"### {mode}\n\n{accuracy_table(answers, mode)}" for mode in MODES)
    card = training / "MODEL_CARD.md"
    card.write_text(
        "# tiny-thinker\n\n"
        "A `Qwen3ForCausalLM` with 12 layers, d_model 128 and 1.8 M parameters, trained from scratch on the\n"
        "testbed by `python -m normprobe.training.tiny_thinker.train`. It thinks, answers at once, or answers after\n"
        "dots (`filler`), as its chat template asks. It knows nothing but the testbed: an instrument, not an\n"
        "assistant.\n\n"
        "Recipe (see `training/tiny_thinker/recipe.py` for its reasons): "
        f"{', '.join(f'{k} {v}' for k, v in recipe.items())}.\n\n"
        f"## Accuracy\n\nGreedy, percent with exact 95 % intervals, {per_cell} held-out problems a cell; columns are\n"
        "difficulties (dependent steps). A blind guess is right in 9 % of arithmetic, 13 % of boolean and 2 % of\n"
        "recall problems.\n\n"
        f"{summary(answers)}\n\n{tables}\n\n"
        "## Where there is room to see help or harm\n\n"
        f"think at difficulty {HARDEST[0]}–{HARDEST[1]}, greedy and sampled at temperature 1, with the distractors of\n"
        f"training and with more (`make_problems(…, distractors={CROWDED})`), {len(HARDEST) * per_cell} problems\n"
        "a cell.\n\n"
        f"{room_table(hardest)}\n\n"
        "## Where a thought goes wrong\n\n"
        "Percent of next tokens right when the reference thought is read along, connectives aside. `copied` is\n"
        "retrieval from the question or the thought; `computed` is the result of a step.\n\n"
        f"{role_table(thoughts)}\n\n"
        "## Has every mode reached its plateau?\n\n"
        "Accuracy on 128 held-out problems of all difficulties while training:\n\n"
        f"{plateau(training / 'log.csv')}\n"
    )
    return card


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m normprobe.training.tiny_thinker.model_card`."""
    parser = argparse.ArgumentParser(prog="normprobe.training.tiny_thinker.model_card", description=__doc__)
    parser.add_argument("training", type=Path, help="directory of a finished training run")
    parser.add_argument(
        "--per-cell", type=int, default=200, help="problems for each domain, difficulty and mode"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    print(f"written: {write_card(**vars(parser.parse_args(argv)))}")


if __name__ == "__main__":
    main()
