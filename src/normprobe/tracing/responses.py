"""Answer every problem in every mode: the table of paired responses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from normprobe.engines.base import Engine, Finish, batches_by_length, check_room
from normprobe.errors import NormprobeError
from normprobe.models.chat import MODES, Chat
from normprobe.problems.source import Scorer
from normprobe.runs.jobs import TABLE, JobRunner

_INTEGERS = ("sample", "n_prompt", "thought_start", "thought_end", "answer_start", "answer_end")


@dataclass(frozen=True)
class _PlannedResponse:
    """One response to write: `key` orders the table; `problem` is a row of the problems table."""

    key: tuple[int, int, int]
    problem: Any
    mode: str
    sample: int
    prompt: list[int]

    @property
    def response_id(self) -> str:
        return f"{self.problem.problem_id}/{self.mode}/{self.sample}"


def generate_responses(
    engine: Engine,
    problems: pd.DataFrame,
    *,
    modes: Sequence[str] = MODES,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int,
    batch_size: int = 128,
    seed: int,
    scorer: Scorer | None = None,
    chunks: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """One row per problem, mode and sample, in that order; columns as in responses/responses.parquet.

    Batches hold prompts of like length. `filler` comes after `think`: its prompt holds as many filler tokens as the
    think response of the same problem and sample has thought tokens. At temperature > 0 the draws are keyed by (seed,
    response_id). A response whose thought is never closed is `truncated`, has no answer span, and is wrong. With
    `chunks`, a folder, each batch is kept there as Parquet and not generated again if it is there.

    Raises NormprobeError for an empty problem set, unknown modes, filler without think, samples that cannot differ
    (temperature 0), or a prompt that leaves no room for `max_new_tokens` in the model's context.
    """
    _check(problems, modes, samples, temperature)

    def write(batch: list[_PlannedResponse]) -> pd.DataFrame:
        written = engine.generate(
            [response.prompt for response in batch],
            max_new_tokens,
            names=[response.response_id for response in batch],
            temperature=temperature,
            draws=partial(keyed_draws, seed),
            batch_size=batch_size,
        )
        responses = zip(batch, written.tokens, written.finish, strict=True)
        return _table([_row(engine.chat, *response, scorer) for response in responses])

    finished: dict[str, dict[str, Any]] = {}
    keys: dict[str, tuple[int, int, int]] = {}
    with ExitStack() as stack:
        folder = chunks or Path(stack.enter_context(TemporaryDirectory()))
        total = len(problems) * len(modes) * samples
        runner = stack.enter_context(
            JobRunner(folder, TABLE, label="responses", unit="response", total=total, progress=progress)
        )
        for mode in (mode for mode in MODES if mode in modes):
            planned = _plan(engine.chat, problems, mode, samples, finished)
            prompts = {response.response_id: response.prompt for response in planned}
            check_room(engine, prompts, max_new_tokens)
            keys |= {response.response_id: response.key for response in planned}
            batches = {
                f"{mode}_{i:05d}": [planned[number] for number in numbers]
                for i, numbers in enumerate(batches_by_length(list(prompts.values()), batch_size))
            }
            tables = runner.run(
                {name: partial(write, batch) for name, batch in batches.items()},
                label=mode,
                size={name: len(batch) for name, batch in batches.items()},
            )
            for rows in tables.values():
                finished |= {row["response_id"]: row for row in rows.to_dict("records")}
    return _table([finished[response_id] for response_id in sorted(finished, key=keys.__getitem__)])


def _plan(
    chat: Chat, problems: pd.DataFrame, mode: str, samples: int, finished: dict[str, dict[str, Any]]
) -> list[_PlannedResponse]:
    """The responses of one mode, in table order."""
    jobs = []
    for i, problem in enumerate(problems.itertuples(index=False)):
        for sample in range(samples):
            n_filler = 0
            if mode == "filler":
                thinking = finished[f"{problem.problem_id}/think/{sample}"]
                n_filler = int(thinking["thought_end"] - thinking["thought_start"])
            prompt = chat.prompt_ids(str(problem.question), mode, n_filler)
            jobs.append(_PlannedResponse((i, MODES.index(mode), sample), problem, mode, sample, prompt))
    return jobs


def _row(
    chat: Chat, job: _PlannedResponse, tokens: list[int], finish: Finish, scorer: Scorer | None
) -> dict[str, Any]:
    token_ids, n_prompt = job.prompt + tokens, len(job.prompt)
    spans = chat.spans(token_ids, n_prompt)
    answer_text = chat.span_text(token_ids, spans.answer)
    gold = None if pd.isna(job.problem.answer) else str(job.problem.answer)
    return {
        "response_id": job.response_id,
        "problem_id": job.problem.problem_id,
        "split": job.problem.split,
        "mode": job.mode,
        "sample": job.sample,
        "token_ids": np.array(token_ids, dtype=np.int64),
        "n_prompt": n_prompt,
        "thought_start": spans.thought[0],
        "thought_end": spans.thought[1],
        "answer_start": spans.answer[0],
        "answer_end": spans.answer[1],
        "finish": finish,
        "truncated": spans.truncated,
        "answer_text": answer_text,
        "correct": None if scorer is None or gold is None else scorer(answer_text, gold),
    }


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    types = dict.fromkeys(_INTEGERS, "int64") | {"truncated": "bool", "correct": "boolean"}
    return pd.DataFrame(rows).astype(types)


def keyed_draws(seed: int, response_id: str, n_steps: int) -> Float[np.ndarray, " step"]:
    """Uniform numbers in [0, 1) keyed by seed and response: neither the other responses nor their order matter."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{response_id}".encode()).digest()[:16], "big")
    return np.random.default_rng(key).random(n_steps)


def _check(problems: pd.DataFrame, modes: Sequence[str], samples: int, temperature: float) -> None:
    if problems.empty:
        raise NormprobeError("expected at least one problem to answer, got none; give a larger problem set")
    if problems["problem_id"].duplicated().any():
        twice = problems["problem_id"][problems["problem_id"].duplicated()].iloc[0]
        raise NormprobeError(f"expected each problem_id once, got {twice!r} twice; rename one")
    if not modes or not set(modes) <= set(MODES):
        raise NormprobeError(
            f"expected modes among {', '.join(MODES)}, got {', '.join(modes) or 'none'}; correct the list"
        )
    if "filler" in modes and "think" not in modes:
        raise NormprobeError(
            "expected think among the modes, got filler without it; filler is as long as the thought: add think"
        )
    if samples < 1 or temperature < 0:
        raise NormprobeError(
            f"expected samples ≥ 1 and temperature ≥ 0, got {samples} and {temperature}; correct them"
        )
    if samples > 1 and temperature == 0:
        raise NormprobeError(
            f"expected a temperature above 0 for {samples} samples, got 0; they would all be the same"
        )
