"""Answer every problem in every mode: the stage responses/ of a run."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normprobe.engines.base import Engine, Finish, batches_by_length, check_room
from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.problems.source import Scorer
from normprobe.runs.jobs import TABLE, JobRunner
from normprobe.runs.layout import FILES
from normprobe.thinking_formats import MODES

FILLER_ANSWER = 64
"""Tokens that an answer after filler may have at least."""
_INTEGERS = ("sample", "n_prompt", "thought_start", "thought_end", "answer_start", "answer_end")


def fill_responses(
    folder: Path,
    engine: Engine,
    problems: pd.DataFrame,
    *,
    max_new_tokens: int,
    batch_size: int = 128,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> None:
    """Write responses.parquet: one greedy response per problem and mode, in that order. Resumes batch by batch.

    Batches hold prompts of like length. `filler` comes after `think`: its prompt holds as many filler tokens as the
    think response of the same problem has thought tokens. A response whose thought is never closed is `truncated`, has
    no answer span, and is wrong.

    Raises NormprobeError for an empty problem set, a repeated problem_id, or a prompt that leaves no room for
    `max_new_tokens` in the model's context.
    """
    if problems.empty:
        raise NormprobeError("expected at least one problem to answer, got none; give a larger problem set")
    if twice := problems["problem_id"][problems["problem_id"].duplicated()].tolist():
        raise NormprobeError(f"expected each problem_id once, got {twice[0]!r} twice; rename one")

    def write(mode: str, limit: int, batch: pd.DataFrame) -> pd.DataFrame:
        names = [f"{problem_id}/{mode}/0" for problem_id in batch["problem_id"]]
        written = engine.generate(batch["prompt"].tolist(), limit, names=names, batch_size=batch_size)
        responses = zip(batch.itertuples(), names, written.tokens, written.finish, strict=True)
        return _table([_row(engine.chat, mode, *response, scorer) for response in responses])

    finished: dict[str, dict[str, Any]] = {}
    # Whatever is wrong with a question is told before the first response; filler's prompts hang on the thoughts.
    asked = {mode: _prompts(engine.chat, problems, mode, {}) for mode in ("think", "no_think")}
    for prompts in asked.values():
        check_room(engine, prompts, max_new_tokens)
    # A filler prompt is as long as no_think's and a thought; its answer gets what room is left, and this at least.
    check_room(engine, asked["no_think"], max_new_tokens + min(max_new_tokens, FILLER_ANSWER))
    chunks, total = folder / "chunks", len(problems) * len(MODES)
    with JobRunner(
        chunks, TABLE, label="responses", unit="response", total=total, progress=progress
    ) as runner:
        for mode in MODES:
            prompts = asked.get(mode) or _prompts(engine.chat, problems, mode, finished)
            limit = max_new_tokens
            if mode == "filler" and engine.context is not None:
                limit = min(limit, engine.context - max(map(len, prompts.values())))
            planned = problems.assign(prompt=pd.Series(list(prompts.values()), index=problems.index))
            batches = {
                f"{mode}_{i:05d}": planned.iloc[numbers]
                for i, numbers in enumerate(batches_by_length(list(prompts.values()), batch_size))
            }
            tables = runner.run(
                {name: partial(write, mode, limit, batch) for name, batch in batches.items()},
                label=mode,
                size={name: len(batch) for name, batch in batches.items()},
            )
            for rows in tables.values():
                finished |= {row["response_id"]: row for row in rows.to_dict("records")}
    in_order = [finished[f"{problem_id}/{mode}/0"] for problem_id in problems["problem_id"] for mode in MODES]
    FILES["responses"].write(folder, _table(in_order))
    shutil.rmtree(chunks)


def _prompts(
    chat: Chat, problems: pd.DataFrame, mode: str, finished: dict[str, dict[str, Any]]
) -> dict[str, list[int]]:
    """Response id → prompt of one mode, in table order."""
    prompts = {}
    for problem_id, question in zip(problems["problem_id"], problems["question"], strict=True):
        n_filler = 0
        if mode == "filler":
            thinking = finished[f"{problem_id}/think/0"]
            n_filler = int(thinking["thought_end"] - thinking["thought_start"])
        prompts[f"{problem_id}/{mode}/0"] = chat.prompt_ids(str(question), mode, n_filler)
    return prompts


def _row(
    chat: Chat, mode: str, problem: Any, name: str, tokens: list[int], finish: Finish, scorer: Scorer | None
) -> dict[str, Any]:
    token_ids, n_prompt = problem.prompt + tokens, len(problem.prompt)
    spans = chat.spans(token_ids, n_prompt)
    answer_text = chat.span_text(token_ids, spans.answer)
    gold = None if pd.isna(problem.answer) else str(problem.answer)
    return {
        "response_id": name,
        "problem_id": problem.problem_id,
        "split": problem.split,
        "mode": mode,
        "sample": 0,
        "token_ids": np.array(token_ids, dtype=np.int64),
        "n_prompt": n_prompt,
        "thought_start": spans.thought[0],
        "thought_end": spans.thought[1],
        "answer_start": spans.answer[0],
        "answer_end": spans.answer[1],
        "finish": finish,
        "truncated": spans.truncated,
        "leaked": spans.leaked,
        "asked": chat.ask(mode).how,
        "answer_text": answer_text,
        "correct": None if scorer is None or gold is None else scorer(answer_text, gold),
    }


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    types = dict.fromkeys(_INTEGERS, "int64") | {"truncated": "bool", "leaked": "bool", "correct": "boolean"}
    return pd.DataFrame(rows).astype(types)
