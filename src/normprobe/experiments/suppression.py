"""The suppression experiment: does shortening high-norm states cost answers that shortening others does not?

Source: "The Tell-Tale Norm" (arXiv 2606.06188), causal experiment. Every treatment answers the same problems in mode
think, greedily.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from normprobe.engines.base import Engine, Events
from normprobe.errors import NormprobeError
from normprobe.experiments.answers import answer
from normprobe.experiments.suppression_treatments import TREATMENTS
from normprobe.experiments.token_groups import token_groups
from normprobe.layer_profile import LayerProfile
from normprobe.policies.controls.replayed_suppression import Doses, ReplayedSuppression
from normprobe.problems.source import Scorer
from normprobe.runs.atomic import atomic_write, read_table, write_table
from normprobe.runs.jobs import JobRunner, ResultFormat
from normprobe.runs.layout import FILES


def fill_experiments(
    folder: Path,
    engine: Engine,
    profile: LayerProfile,
    problems: pd.DataFrame,
    tokens: pd.DataFrame,
    *,
    max_new_tokens: int,
    batch_size: int = 128,
    seed: int,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> None:
    """Write suppression.parquet: a row per problem of the split `measure` and treatment. Resumes by treatment.

    `tokens` (traces/tokens.parquet) tells the classes of tokens.
    Raises NormprobeError for a profile of another model, or no problem to measure.
    """
    profile.for_model(engine.identity.to_dict())
    problems = problems[problems["split"] == "measure"].reset_index(drop=True)
    if problems.empty:
        raise NormprobeError("expected problems in the split measure, got none; give more problems")
    problem_ids = problems["problem_id"].tolist()

    def conduct(name: str) -> _Result:
        how = TREATMENTS[name]
        facts = {"treatment": name, "factor": how.factor, "on_same_tokens": math.nan}
        if how.doses_of is not None:
            source = doses[how.doses_of]
            n_steps = source.delta.shape[1]
            groups = token_groups(tokens, problem_ids, n_steps) if how.by_class else None
            replayed = source.shuffled(seed, groups)
            policy = ReplayedSuppression(replayed, None if math.isnan(how.factor) else how.factor)
            facts["on_same_tokens"] = replayed.share_on_tokens_of(source).numpy()
        else:
            assert how.policy is not None
            policy = how.policy(profile, seed)
        rows, events = answer(
            engine, policy, problems, max_new_tokens=max_new_tokens, batch_size=batch_size, scorer=scorer
        )
        applied = doses_of(events, rows["n_tokens"].tolist(), policy.layers, problem_ids)
        rows = rows.drop(columns=["answer", "n_passes"]).rename(columns={"n_triggered": "n_suppressed"})
        return rows.assign(**facts), applied

    doses: dict[str, Doses] = {}
    tables: list[pd.DataFrame] = []
    copied = {treatment.doses_of for treatment in TREATMENTS.values()}
    parts = folder / "treatments"
    with JobRunner(
        parts, _KEPT, label="experiment", unit="treatment", total=len(TREATMENTS), progress=progress
    ) as runner:
        for treatment in TREATMENTS:  # a random one needs the doses of the one it copies
            rows, applied = runner.run({treatment: partial(conduct, treatment)}, label=treatment)[treatment]
            tables.append(rows)
            if treatment in copied:
                doses[treatment] = applied
    FILES["suppression"].write(folder, pd.concat(tables, ignore_index=True))
    shutil.rmtree(parts)


def doses_of(
    events: Events, n_tokens: Sequence[int], layers: tuple[int, ...], requests: Sequence[str]
) -> Doses:
    """The events as a table by request, step and layer: a request has as many states as it has generated tokens."""
    delta = torch.zeros(len(n_tokens), max(n_tokens), len(layers))
    column = torch.tensor([layers.index(layer) for layer in events.layer.tolist()], dtype=torch.long)
    delta[events.request, events.step, column] = events.delta
    return Doses(delta, torch.tensor(n_tokens), layers, tuple(requests))


_Result = tuple[pd.DataFrame, Doses]


def _write(path: Path, result: _Result) -> None:
    rows, doses = result
    tensors = {"delta": doses.delta, "n_steps": doses.n_steps, "layers": torch.tensor(doses.layers)}
    with atomic_write(path.with_suffix(".safetensors")) as unfinished:
        save_file(tensors, unfinished)
    write_table(path, rows)  # last: where it is, the doses are


def _read(path: Path) -> _Result:
    rows, tensors = read_table(path), load_file(path.with_suffix(".safetensors"))
    layers, requests = tuple(tensors["layers"].tolist()), tuple(rows["problem_id"])
    return rows, Doses(tensors["delta"], tensors["n_steps"], layers, requests)


_KEPT = ResultFormat(".parquet", _write, _read)
