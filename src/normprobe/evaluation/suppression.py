"""The suppression experiment: does shortening high-norm states cost answers that shortening others does not?

Source: "The Tell-Tale Norm" (arXiv 2606.06188), causal experiment. Every arm answers the same problems in mode think,
greedily.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from normprobe.engines.hf import Events, UntriggeredWarning, generate
from normprobe.errors import NormprobeError
from normprobe.evaluation.arms import ARMS, FACTOR, SOURCE_OF, dealt, in_order, policy_of
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import OpenModel
from normprobe.policies.rows import Policy
from normprobe.policies.suppression import Doses, ReplayedSuppression
from normprobe.runs import Run, atomic_write
from normprobe.tracing.responses import Scorer
from normprobe.tracing.store import read_table

MODE = "think"


def stage_experiments(
    run: Run,
    opened: OpenModel,
    config: Mapping[str, Any],
    profile: LayerProfile,
    *,
    arms: Sequence[str] = ARMS,
    max_new_tokens: int,
    batch_size: int = 128,
    seed: int,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> None:
    """Fill experiments/ (suppression.parquet) from the run's problems of split `measure`: a row per problem and arm.

    Nothing to do if it is complete with `config`, into which the caller puts the model's identity and all arguments;
    resumes arm by arm. Columns: problem_id, arm, mode, factor (what is left of the norm of a changed state; NaN where
    that differs from state to state), on_same_tokens (random arms: share of the dealt tokens that the source arm
    changed itself; NaN if none), correct, n_tokens (generated), n_suppressed (changed states: tokens × layers),
    delta_norm (mean ‖Δh‖ over those; NaN if none).

    Raises NormprobeError for a profile of another model, unknown arms, a random arm without its source, no traces, or
    no problem to measure.
    """
    if run.stage_complete("experiments", config):
        return
    profile.for_model(opened.identity.to_dict())
    ordered = in_order(arms)
    tokens = read_table(run["traces"] / "tokens.parquet")
    problems = read_table(run["problems"] / "problems.parquet")
    problems = problems[problems["split"] == "measure"].reset_index(drop=True)
    if problems.empty:
        raise NormprobeError("expected problems in the split measure, got none; give more problems")
    problem_ids = problems["problem_id"].tolist()
    with run.stage("experiments", config) as folder:
        finished = folder / "arms"
        finished.mkdir(exist_ok=True)
        doses: dict[str, Doses] = {}
        for arm in ordered:
            table, dose = finished / f"{arm}.parquet", finished / f"{arm}.safetensors"
            if not table.exists():
                facts = {"arm": arm, "factor": FACTOR[arm], "on_same_tokens": math.nan}
                if arm in SOURCE_OF:
                    deal = dealt(arm, doses, tokens, problem_ids, seed)
                    policy = ReplayedSuppression(deal, None if math.isnan(FACTOR[arm]) else FACTOR[arm])
                    facts["on_same_tokens"] = deal.share_on_tokens_of(doses[SOURCE_OF[arm]]).cpu().numpy()
                else:
                    policy = policy_of(arm, profile, problem_ids, seed)
                rows, given = answer(
                    opened,
                    policy,
                    problems,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                    scorer=scorer,
                    progress=f"experiment {arm}" if progress else None,
                )
                _write_doses(dose, given)  # before the table: where that is, the doses are
                with atomic_write(table) as unfinished:
                    rows.assign(**facts).to_parquet(unfinished, index=False)
            if arm in SOURCE_OF.values():
                doses[arm] = _read_doses(dose, opened.device)
        with atomic_write(folder / "suppression.parquet") as unfinished:
            tables = [pd.read_parquet(finished / f"{arm}.parquet") for arm in ordered]
            pd.concat(tables, ignore_index=True).to_parquet(unfinished, index=False)
        shutil.rmtree(finished)


def answer(
    opened: OpenModel,
    policy: Policy,
    problems: pd.DataFrame,
    *,
    max_new_tokens: int,
    batch_size: int = 128,
    scorer: Scorer | None = None,
    progress: str | None = None,
) -> tuple[pd.DataFrame, Doses]:
    """Answer every problem under a policy: one row each, in table order, and what the policy took off which state.

    A thought that never closes has no answer and is wrong; without a scorer or a gold answer `correct` is missing.
    """
    prompts = [opened.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
    with warnings.catch_warnings():
        # An arm that changes nothing is a result, and stands in the table.
        warnings.simplefilter("ignore", UntriggeredWarning)
        written, events = generate(
            opened, policy, prompts, max_new_tokens, batch_size=batch_size, progress=progress
        )
    slot = events.slot.numpy()
    count = np.bincount(slot, minlength=len(problems))
    total = np.bincount(slot, weights=events.delta.double().numpy(), minlength=len(problems))
    gold = [None if pd.isna(value) else str(value) for value in problems["answer"]]
    table = pd.DataFrame(
        {
            "problem_id": problems["problem_id"],
            "mode": MODE,
            "correct": pd.array(
                [
                    None
                    if scorer is None or right is None
                    else scorer(_answer_text(opened, prompt, tokens), right)
                    for prompt, tokens, right in zip(prompts, written, gold, strict=True)
                ],
                dtype="boolean",
            ),
            "n_tokens": [len(tokens) for tokens in written],
            "n_suppressed": count,
            "delta_norm": np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0),
        }
    )
    return table, doses_of(events, [len(tokens) for tokens in written], policy.layers)


def doses_of(events: Events, n_tokens: Sequence[int], layers: tuple[int, ...]) -> Doses:
    """The events as a table by slot, step and layer: a request has as many states as it has generated tokens."""
    delta = torch.zeros(len(n_tokens), max(n_tokens), len(layers))
    column = torch.tensor([layers.index(layer) for layer in events.layer.tolist()], dtype=torch.long)
    delta[events.slot, events.step, column] = events.delta
    return Doses(delta, torch.tensor(n_tokens), layers)


def _answer_text(opened: OpenModel, prompt: list[int], tokens: list[int]) -> str:
    start, end = opened.chat.spans(prompt + tokens, len(prompt)).answer
    return opened.chat.response_text((prompt + tokens)[start:end]) if start >= 0 else ""


def _write_doses(path: Path, doses: Doses) -> None:
    with atomic_write(path) as unfinished:
        tensors = {"delta": doses.delta, "n_steps": doses.n_steps, "layers": torch.tensor(doses.layers)}
        save_file(tensors, unfinished)


def _read_doses(path: Path, device: torch.device) -> Doses:
    tensors = load_file(path, device=str(device))
    return Doses(tensors["delta"], tensors["n_steps"], tuple(tensors["layers"].tolist()))
