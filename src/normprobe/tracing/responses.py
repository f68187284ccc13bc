"""Answer every problem in every mode: the table of paired responses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.chat import MODES
from normprobe.models.open import OpenModel
from normprobe.runs.files import read_table, write_table
from normprobe.tracing.decode import decode

Scorer = Callable[[str, str], bool]
"""(text of the answer, gold answer) → is it right?"""

_INTEGERS = ("sample", "n_prompt", "thought_start", "thought_end", "answer_start", "answer_end")


@dataclass(frozen=True)
class _Job:
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
    opened: OpenModel,
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
    finished: dict[str, dict[str, Any]] = {}
    keys: dict[str, tuple[int, int, int]] = {}
    with tqdm(
        total=len(problems) * len(modes) * samples, desc="responses", unit="response", disable=not progress
    ) as bar:
        for mode in (mode for mode in MODES if mode in modes):
            jobs = _jobs(opened, problems, mode, samples, finished)
            _check_room(opened, jobs, max_new_tokens)
            for i, start in enumerate(range(0, len(jobs), batch_size)):
                batch = jobs[start : start + batch_size]
                path = None if chunks is None else chunks / f"{mode}_{i:05d}.parquet"
                if path is not None and path.exists():
                    rows = read_table(path)
                else:
                    draws = _draws(batch, seed, max_new_tokens) if temperature > 0 else None
                    prompts = [job.prompt for job in batch]
                    written = decode(opened, prompts, max_new_tokens, temperature=temperature, draws=draws)
                    rows = _table(
                        [
                            _row(opened, job, tokens, scorer)
                            for job, tokens in zip(batch, written, strict=True)
                        ]
                    )
                    if path is not None:
                        write_table(path, rows)
                finished |= {row["response_id"]: row for row in rows.to_dict("records")}
                keys |= {job.response_id: job.key for job in batch}
                bar.update(len(batch))
    return _table([finished[response_id] for response_id in sorted(finished, key=keys.__getitem__)])


def _jobs(
    opened: OpenModel, problems: pd.DataFrame, mode: str, samples: int, finished: dict[str, dict[str, Any]]
) -> list[_Job]:
    """The responses of one mode by length of prompt, then in table order: a plan that depends on nothing else."""
    jobs = []
    for i, problem in enumerate(problems.itertuples(index=False)):
        for sample in range(samples):
            n_filler = 0
            if mode == "filler":
                thinking = finished[f"{problem.problem_id}/think/{sample}"]
                n_filler = int(thinking["thought_end"] - thinking["thought_start"])
            prompt = opened.chat.prompt_ids(str(problem.question), mode, n_filler)
            jobs.append(_Job((i, MODES.index(mode), sample), problem, mode, sample, prompt))
    return sorted(jobs, key=lambda job: (len(job.prompt), job.key))


def _row(opened: OpenModel, job: _Job, tokens: list[int], scorer: Scorer | None) -> dict[str, Any]:
    token_ids, n_prompt = job.prompt + tokens, len(job.prompt)
    spans = opened.chat.spans(token_ids, n_prompt)
    (thought_start, thought_end), (answer_start, answer_end) = spans.thought, spans.answer
    answer_text = opened.chat.response_text(token_ids[answer_start:answer_end]) if answer_start >= 0 else ""
    gold = None if pd.isna(job.problem.answer) else str(job.problem.answer)
    return {
        "response_id": job.response_id,
        "problem_id": job.problem.problem_id,
        "split": job.problem.split,
        "mode": job.mode,
        "sample": job.sample,
        "token_ids": np.array(token_ids, dtype=np.int64),
        "n_prompt": n_prompt,
        "thought_start": thought_start,
        "thought_end": thought_end,
        "answer_start": answer_start,
        "answer_end": answer_end,
        "finish": "stop" if tokens[-1] in opened.chat.eos_ids else "length",
        "truncated": spans.truncated,
        "answer_text": answer_text,
        "correct": None if scorer is None or gold is None else scorer(answer_text, gold),
    }


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    types = dict.fromkeys(_INTEGERS, "int64") | {"truncated": "bool", "correct": "boolean"}
    return pd.DataFrame(rows).astype(types)


def _draws(jobs: list[_Job], seed: int, max_new_tokens: int) -> Float[np.ndarray, "row step"]:
    """Uniform draws in [0, 1) keyed by response: neither the other rows nor their order matter."""

    def key(job: _Job) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}/{job.response_id}".encode()).digest()[:16], "big")

    return np.stack([np.random.default_rng(key(job)).random(max_new_tokens) for job in jobs])


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


def _check_room(opened: OpenModel, jobs: list[_Job], max_new_tokens: int) -> None:
    context = getattr(opened.model.config.get_text_config(), "max_position_embeddings", None)
    longest = jobs[-1]
    if context is not None and len(longest.prompt) + max_new_tokens > context:
        raise NormprobeError(
            f"expected prompt and response within the model's {context} tokens, "
            f"got {len(longest.prompt)} + {max_new_tokens} for {longest.response_id}; "
            "lower max_new_tokens or leave the problem out"
        )
