"""The two stages of a run that this folder fills: responses/ and traces/."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.models.chat import MODES
from normprobe.models.open import OpenModel
from normprobe.runs.directory import Run
from normprobe.runs.files import read_table, signals_path, write_signals, write_table
from normprobe.tracing.responses import Scorer, generate_responses
from normprobe.tracing.trace import Roles, replay, trace


def stage_responses(
    run: Run,
    opened: OpenModel,
    config: Mapping[str, Any],
    *,
    modes: Sequence[str] = MODES,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int,
    batch_size: int = 128,
    seed: int,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> None:
    """Fill responses/ from the run's problems; nothing to do if it is complete with `config`. Resumes batch by batch.

    `config` decides whether the stage is run again: the caller puts the model's identity and all arguments into it.
    Raises NormprobeError as `generate_responses` does, and if the run has no problems.
    """
    if run.stage_complete("responses", config):
        return
    problems = read_table(run["problems"] / "problems.parquet")
    with run.stage("responses", config) as folder:
        chunks = folder / "chunks"
        chunks.mkdir(exist_ok=True)
        responses = generate_responses(
            opened,
            problems,
            modes=modes,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
            scorer=scorer,
            chunks=chunks,
            progress=progress,
        )
        write_table(folder / "responses.parquet", responses)
        shutil.rmtree(chunks)


def stage_traces(
    run: Run,
    subjects: Mapping[str, OpenModel],
    config: Mapping[str, Any],
    *,
    roles: Roles | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> None:
    """Fill traces/ from the run's responses; nothing to do if it is complete with `config`. Resumes subject by subject.

    `subjects` maps names to models: "model" wrote the responses, the others (controls) read the same token ids.
    Raises NormprobeError if "model" is not among them, if a control has another tokenizer, or as `replay` does.
    """
    if run.stage_complete("traces", config):
        return
    if "model" not in subjects:
        raise NormprobeError(
            f"expected the subject 'model' to trace, got {', '.join(subjects) or 'none'}; add it"
        )
    for subject, opened in subjects.items():
        if opened.identity.tokenizer != subjects["model"].identity.tokenizer:
            raise NormprobeError(
                f"expected subject '{subject}' to share the model's tokenizer, got another; "
                "the same token ids would mean other text: use a checkpoint of the same model"
            )
    responses = read_table(run["responses"] / "responses.parquet")
    problems = read_table(run["problems"] / "problems.parquet")
    with run.stage("traces", config) as folder:
        for subject, opened in subjects.items():
            if signals_path(folder, subject).exists():
                continue
            if subject == "model":
                tokens, signals = trace(
                    opened, responses, problems, roles=roles, batch_size=batch_size, progress=progress
                )
                write_table(
                    folder / "tokens.parquet", tokens
                )  # before the signals: where those are, the table is
            else:
                signals = replay(opened, responses, subject=subject, batch_size=batch_size, progress=progress)
            write_signals(folder, subject, signals)
