"""Any task of lm-evaluation-harness under the paper's methods and their baselines, document by document."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pandas as pd
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from normprobe.config import Study
from normprobe.engines.base import UntriggeredWarning
from normprobe.errors import NormprobeError
from normprobe.experiments.lm_eval import NormprobeLM
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.experiments.method_settings import papers
from normprobe.layer_profile import LayerProfile
from normprobe.policies.policy import Policy

BATCH = 64


def run_tasks(study: Study, profile: LayerProfile) -> pd.DataFrame:
    """A row per task, document and treatment: the task's first metric (its sign turned where lower is better), and how
    often the treatment acted on all documents of all tasks, per generated token and layer.

    Raises NormprobeError for a profile of another model, or tasks that the harness does not know.
    """
    given = dataclasses.asdict(study.evaluated)
    given.pop("early")
    opened: Any = NormprobeLM  # decorators of the harness hide the signatures of both
    with closing(opened(given.pop("name"), **given, batch_size=BATCH)) as model:
        profile.for_model(model.engine.identity.to_dict())
        return _run_tasks(model, study, profile)


def _run_tasks(model: Any, study: Study, profile: LayerProfile) -> pd.DataFrame:
    tasks, limit, seed = (study.methods.tasks or "").split(","), study.methods.limit, study.seed
    include_path = study.methods.include_path
    evaluate: Any = simple_evaluate
    manager = TaskManager(include_path=[str(DIRECTORY), *([include_path] if include_path else [])])
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise NormprobeError(
            f"expected tasks that lm-eval knows, got {', '.join(unknown)}; `normprobe lm-eval ls tasks` lists them"
        )

    def under(treatment: str, policy: Policy | None) -> pd.DataFrame:
        model.policy = policy
        with warnings.catch_warnings():
            # A treatment that never acts is a result here.
            warnings.simplefilter("ignore", UntriggeredWarning)
            found = evaluate(
                model,
                tasks=tasks,
                limit=limit,
                apply_chat_template=True,
                task_manager=manager,
                bootstrap_iters=0,
                random_seed=seed,
            )
        return _documents(found).assign(treatment=treatment)

    frames = [under("plain", None)]
    for setting in papers(profile):
        policy = setting.policy(profile, lambda _layers: {})  # CAA's alone, which is none of the paper's
        trigger = dict(setting.other).get("trigger")
        name = setting.method if trigger is None else f"{setting.method} {trigger}"
        frames.append(under(name, policy))
        rates = {layer: model.acted[layer] / max(model.n_tokens, 1) for layer in policy.layers}
        frames[-1]["acted"] = sum(rates.values()) / len(rates)
        # The harness samples by itself, so nobody knows the entropy that a token was drawn from.
        baselines = policy.baselines(rates, seed, None, model.engine.identity.n_layers)
        frames += [under(f"{name}: {baseline}", other) for baseline, other in baselines.items()]
    return pd.concat(frames, ignore_index=True)


def _documents(found: Mapping[str, Any]) -> pd.DataFrame:
    """One row per document: the first metric that its task names."""
    rows = []
    for task, samples in found["samples"].items():
        for sample in samples:
            metric = sample["metrics"][0]
            sign = 1 if found["higher_is_better"][task].get(metric, True) else -1
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "problem_id": f"{task}/{sample['doc_id']}",
                    "correct": sign * float(sample[metric]),
                }
            )
    return pd.DataFrame(rows)
