"""Any task of lm-evaluation-harness under the paper's methods and their baselines, document by document."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from normprobe.config import Study
from normprobe.engines.base import UntriggeredWarning
from normprobe.errors import NormprobeError
from normprobe.experiments.drawn_entropies import drawn_entropies
from normprobe.experiments.lm_eval import NormprobeLM
from normprobe.experiments.lm_eval_requests import Written
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.experiments.method_settings import papers
from normprobe.layer_profile import LayerProfile
from normprobe.policies.policy import Policy

BATCH = 64


def run_tasks(study: Study, profile: LayerProfile) -> pd.DataFrame:
    """A row per task, metric, document, treatment and sample: the metric (its sign turned where lower is better), what
    the answer cost, and how often the treatment acted on all documents of all tasks, per generated token and layer.

    Of a task the first metric, once for each of its filters. Without a temperature each document has one answer, as the
    task asks for it, greedy as a rule; with one `methods.samples`, drawn with numbers that all treatments share.
    Raises NormprobeError for a profile of another model, or tasks that the harness does not know.
    """
    given, thinking = dataclasses.asdict(study.evaluated), study.thinking
    given.pop("early")
    opened: Any = NormprobeLM  # decorators of the harness hide the signatures of both
    with closing(
        opened(
            given.pop("name"),
            **given,
            seed=study.seed,
            max_gen_toks=study.max_new_tokens,
            thinking_format=thinking.format,
            think_start=thinking.start,
            think_end=thinking.end,
            system_prompt=thinking.system_prompt,
            chat_template_kwargs=thinking.chat_template_kwargs,
            batch_size=BATCH,
        )
    ) as model:
        profile.for_model(model.engine.identity.to_dict())
        model.temperature = study.methods.temperature
        return _run_tasks(_Harness.of(model, study), profile)


@dataclass(frozen=True)
class _Harness:
    """A model, and the tasks that it is asked: to be tested on, and the same with other documents (see `held_back`)."""

    model: Any
    study: Study
    manager: TaskManager
    tasks: list[Any]
    tuning: list[tuple[Any, list[int]]]

    @classmethod
    def of(cls, model: Any, study: Study) -> _Harness:
        """Raises NormprobeError for tasks that the harness does not know."""
        plan = study.methods
        names = (plan.tasks or "").split(",")
        paths: list[str | Path] = [str(DIRECTORY), *([plan.include_path] if plan.include_path else [])]
        manager = TaskManager(include_path=paths, include_defaults=False)
        if not set(names) <= set(manager.all_subtasks):
            manager = TaskManager(include_path=paths)  # reads thousands of files
        if unknown := [name for name in names if name not in manager.all_tasks]:
            raise NormprobeError(
                f"expected tasks that lm-eval knows, got {', '.join(unknown)}; `normprobe lm-eval ls tasks` lists them"
            )
        tasks, others = (list(manager.load(names)["tasks"].values()) for _ in range(2))
        return cls(model, study, manager, tasks, held_back(others, plan.limit, plan.tune))

    def treated(self, treatment: str, policy: Policy | None) -> tuple[pd.DataFrame, dict[int, float]]:
        """The rows of a treatment, and by layer the share of tokens that it acted on."""
        frames, acted, n_tokens = [], Counter[int](), 0
        for sample in range(self.study.methods.answers):
            found = self._answered(self.tasks, policy, sample, limit=self.study.methods.limit)
            frames.append(_documents(found, self.model.written).assign(sample=sample))
            acted.update(self.model.acted)
            n_tokens += sum(len(one.tokens) for one in self.model.written)
        rates = {layer: acted[layer] / max(n_tokens, 1) for layer in policy.acts_at} if policy else {}
        table = pd.concat(frames, ignore_index=True).assign(
            treatment=treatment, acted=sum(rates.values()) / len(rates) if rates else np.nan
        )
        table["extra_tokens"] = table.pop("n_passes") / self.model.engine.identity.n_layers
        return table, rates

    def entropy_above(self, share: float) -> float:
        """The output entropy, nats, above which a share of the states of plain answers to other documents lies."""
        numbers = {task.task_name: documents for task, documents in self.tuning}
        self._answered([task for task, _ in self.tuning], None, 0, samples=numbers)
        prompts, tokens = (
            [getattr(one, part) for one in self.model.written] for part in ("prompt", "tokens")
        )
        entropies = np.concatenate(drawn_entropies(self.model.opened, prompts, tokens))
        return float(np.quantile(entropies, 1 - share))

    def _answered(
        self, tasks: list[Any], policy: Policy | None, sample: int, **documents: Any
    ) -> Mapping[str, Any]:
        self.model.policy, self.model.sample = policy, sample
        evaluate: Any = simple_evaluate
        with warnings.catch_warnings():
            # A treatment that never acts is a result here.
            warnings.simplefilter("ignore", UntriggeredWarning)
            return evaluate(
                self.model,
                tasks=tasks,
                apply_chat_template=True,
                task_manager=self.manager,
                bootstrap_iters=0,
                random_seed=self.study.seed,
                **documents,
            )


def _run_tasks(harness: _Harness, profile: LayerProfile) -> pd.DataFrame:
    frames = [harness.treated("plain", None)[0]]
    for setting in papers(profile):
        policy = setting.policy(profile, lambda _layers: {})  # CAA's alone, which is none of the paper's
        trigger = dict(setting.other).get("trigger")
        name = setting.method if trigger is None else f"{setting.method} {trigger}"
        table, rates = harness.treated(name, policy)
        baselines = policy.baselines(
            rates,
            harness.study.seed,
            harness.entropy_above if harness.tuning else None,
            harness.model.engine.identity.n_layers,
        )
        frames.append(table)
        frames += [harness.treated(f"{name}: {baseline}", other)[0] for baseline, other in baselines.items()]
    return pd.concat(frames, ignore_index=True)


def held_back(tasks: Sequence[Any], limit: int | None, n: int) -> list[tuple[Any, list[int]]]:
    """Of each task up to n documents that it is not tested on, and no more than `limit`: the task, which gives these
    from now on, and their numbers.

    Of its training or validation split; of a task that has none, those behind the `limit`. A task without either is
    left out.
    """
    found, n = [], min(n, limit or n)
    for task in tasks:
        splits = [task.get_config(f"{name}_split") for name in ("test", "validation", "training")]
        tested, *others = filter(None, splits)
        spare, first = [split for split in others if split != tested], limit
        if spare:
            task.set_config("test_split", spare[-1])
            first = 0
        if first is not None and (numbers := list(range(first, min(first + n, len(task.eval_docs))))):
            found.append((task, numbers))
    return found


def _documents(found: Mapping[str, Any], written: Sequence[Written]) -> pd.DataFrame:
    """One row per document and filter of its answer: the first metric that its task names, and what the answer took."""
    tokens, passes = Counter[tuple[str | None, int | None]](), Counter[tuple[str | None, int | None]]()
    for one in written:
        tokens[one.document] += len(one.tokens)
        passes[one.document] += one.passes
    rows = []
    for task, samples in found["samples"].items():
        for sample in samples:
            metric, document = sample["metrics"][0], (task, sample["doc_id"])
            sign = 1 if found["higher_is_better"][task].get(metric, True) else -1
            rows.append(
                {
                    "task": task,
                    "metric": metric if sample["filter"] == "none" else f"{metric}, {sample['filter']}",
                    "problem_id": f"{task}/{sample['doc_id']}",
                    "correct": sign * float(sample[metric]),
                    "n_tokens": tokens[document],
                    "n_passes": passes[document],
                }
            )
    return pd.DataFrame(rows)
