"""Filling the stages responses/ and traces/ of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from normprobe.engines.base import Engine
from normprobe.errors import NormprobeError
from normprobe.models.chat import MODES
from normprobe.models.model import OpenModel
from normprobe.problems.source import Roles, Scorer
from normprobe.runs.layout import FILES
from normprobe.tracing.responses import generate_responses
from normprobe.tracing.trace import replay, trace


def fill_responses(
    folder: Path,
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
    progress: bool = True,
) -> None:
    """Write responses.parquet: the model's responses to `problems`. Resumes batch by batch.

    Raises NormprobeError as `generate_responses` does.
    """
    chunks = folder / "chunks"
    chunks.mkdir(exist_ok=True)
    responses = generate_responses(
        engine,
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
    FILES["responses"].write(folder, responses)
    shutil.rmtree(chunks)


def fill_traces(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    responses: pd.DataFrame,
    problems: pd.DataFrame,
    *,
    roles: Roles | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> None:
    """Write tokens.parquet, and SUBJECT.safetensors for each subject. Resumes subject by subject.

    `subjects` maps names to models: "model" wrote the responses, the others (controls) read the same token ids.
    Raises NormprobeError if "model" is not among them, if a control has another tokenizer, or as `replay` does.
    """
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
    for subject, opened in subjects.items():
        file = FILES[f"signals/{subject}"]
        if (folder / file.name).exists():
            continue
        if subject == "model":
            tokens, signals = trace(
                opened, responses, problems, roles=roles, batch_size=batch_size, progress=progress
            )
            # Before the signals: where those are, the table is.
            FILES["tokens"].write(folder, tokens)
        else:
            signals = replay(opened, responses, subject=subject, batch_size=batch_size, progress=progress)
        file.write(folder, signals)
