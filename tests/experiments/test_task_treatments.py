"""Tasks of lm-evaluation-harness under the methods and their baselines, on the bundled model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lm_eval.tasks import TaskManager

from normprobe import evaluate
from normprobe.config import MethodSettings, Study
from normprobe.errors import NormprobeError
from normprobe.experiments.task_treatments import held_back, run_tasks
from normprobe.labels import in_words
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import open_model
from normprobe.pipeline import Pipeline
from normprobe.report.table import number
from normprobe.report.task_results import task_table
from normprobe.runs.directory import Run
from normprobe.session import Session
from normprobe.study_stages import STAGES, needed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a run as the evaluation of tasks reads; τ so low that ALRR acts."""
    path = tmp_path_factory.mktemp("runs") / "run"
    pipeline = Pipeline(Session(Study(), Run(path)))
    pipeline.begin()
    identity = open_model("tiny-thinker").identity.to_dict()
    levels, norms = [0.0, 0.25, 0.5, 0.75, 1.0], [5.0, 9.0, 10.0, 11.0, 20.0]
    quantiles = {"think": [norms] * 12}
    profile = LayerProfile(1, identity, levels, quantiles, quantiles, [14.0] * 12, None, [9], 8)
    for stage in needed(["profile"]):
        with pipeline.session.run.stage(pipeline.labels()[stage]) as folder:
            if stage == "problems":
                STAGES[stage].fill(pipeline.session, folder)
            profile.save(folder / "layer_profile.json")
    return path


def test_every_arm_answers_the_same_documents(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(run), "--tasks", "normprobe_recall", "--limit", "2"])
    printed = capsys.readouterr().out
    table = pd.read_parquet(run / "tasks" / "tasks.parquet")
    treatments = list(table["treatment"].unique())
    assert treatments[0] == "plain"
    assert {"ALRR", "ALRR: random gate", "ERSS at_peaks: rotation", "ERSS low_streak"} < set(treatments)
    assert "ALRR: entropy gate" in treatments
    ids = set(table["problem_id"])
    assert ids == {f"normprobe_recall/{i}" for i in range(2)}
    assert all(set(rows["problem_id"]) == ids for _, rows in table.groupby("treatment"))
    assert (table.loc[table["treatment"] == "plain", "correct"] == 1.0).all()
    assert table.loc[table["treatment"] == "ALRR", "acted"].between(0, 1, inclusive="neither").all()
    assert all(in_words(treatment) in printed for treatment in treatments)
    assert "pass@" not in printed
    assert set(table["sample"]) == {0}
    costs = table.groupby("treatment")[["n_tokens", "extra_tokens"]].sum()
    assert (costs["n_tokens"] > 0).all()
    assert costs.loc["plain", "extra_tokens"] == 0
    # One extra pass of one layer of twelve for every state that it acts on.
    n_acted = (table["acted"] * table["n_tokens"])[table["treatment"] == "ALRR: always on"].sum()
    assert costs.loc["ALRR: always on", "extra_tokens"] == pytest.approx(n_acted / 12)


def test_samples_are_shared_by_all_treatments(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--tasks normprobe_recall --limit 2 --samples 2 --temperature 2".split()
    evaluate.main([str(run), *options])
    printed = capsys.readouterr().out
    assert "avg@2" in printed
    assert "pass@2" in printed
    table = pd.read_parquet(run / "tasks" / "tasks.parquet")
    assert (table.groupby("treatment").size() == 2 * 2).all()
    keys = ["sample", "problem_id", "correct", "n_tokens"]
    rows = {treatment: own[keys].reset_index(drop=True) for treatment, own in table.groupby("treatment")}
    one, two = (own["n_tokens"].tolist() for _, own in rows["plain"].groupby("sample"))
    assert one != two
    idle = table.loc[table["acted"] == 0, "treatment"].iloc[0]
    assert rows[idle].equals(rows["plain"])  # under no change the same draws give the same samples
    assert not rows["ALRR: always on"].equals(rows["plain"])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--samples", "4"], "expected --temperature with --tasks and --samples 4, got none"),
        (["--temperature", "0"], "expected methods.temperature above 0, got 0"),
    ],
)
def test_sampling_takes_a_temperature(run: Path, options: list[str], message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        evaluate.main([str(run), "--tasks", "normprobe_recall", *options])


def test_a_temperature_alone_is_refused() -> None:
    with pytest.raises(NormprobeError, match=r"expected --tasks with --temperature, got 0\.6 alone"):
        MethodSettings(temperature=0.6)


ALIKE = """
task: {task}
custom_dataset: !function documents.alike
{splits}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 152}}
metric_list: [{{metric: exact_match}}]
filter_list:
  - {{name: strict, filter: [{{function: regex, regex_pattern: "answer : (.*)"}}, {{function: take_first}}]}}
  - {{name: first word, filter: [{{function: regex, regex_pattern: "([a-z]+)"}}, {{function: take_first}}]}}
"""
DOCUMENTS = """
from datasets import Dataset
from normprobe.problems.testbed.problems import make_problems

def alike(**_):
    rows = [{"question": p.question, "answer": p.answer} for p in make_problems(5, 1, domains=["recall"])]
    return {"train": Dataset.from_list(rows[:3]), "test": Dataset.from_list(rows[3:])}
"""


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """Tasks with two filters of the answer, as gsm8k has them: one that has a split for training, one that has not."""
    (tmp_path / "documents.py").write_text(DOCUMENTS, encoding="utf-8")
    for task, splits in {
        "trained": "training_split: train\ntest_split: test",
        "tested": "test_split: test",
    }.items():
        (tmp_path / f"{task}.yaml").write_text(ALIKE.format(task=task, splits=splits), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "limit, n, expected",
    [
        (None, 8, {"trained": ("train", [0, 1, 2])}),
        (None, 2, {"trained": ("train", [0, 1])}),
        (1, 8, {"trained": ("train", [0]), "tested": ("test", [1])}),
    ],
)
def test_thresholds_come_from_documents_outside_the_test(
    own_tasks: Path, limit: int | None, n: int, expected: dict[str, tuple[str, list[int]]]
) -> None:
    tasks = TaskManager(include_path=str(own_tasks), include_defaults=False).load(["trained", "tested"])[
        "tasks"
    ]
    found = held_back(list(tasks.values()), limit, n)
    assert {task.task_name: (task.config.test_split, numbers) for task, numbers in found} == expected


def test_every_filter_of_an_answer_is_a_metric_and_a_task_may_lack_a_gate(run: Path, own_tasks: Path) -> None:
    plan = MethodSettings(tasks="tested", include_path=str(own_tasks))
    table = run_tasks(Study(methods=plan), Session(Study(), Run(run)).profile)
    assert "ALRR: entropy gate" not in set(table["treatment"])
    plain = table[table["treatment"] == "plain"].groupby("metric")["correct"].mean()
    assert plain.to_dict() == {"exact_match, strict": 1.0, "exact_match, first word": 0.0}
    head, rows = task_table(table)
    assert len(rows) == 2 * table["treatment"].nunique()
    assert head[4] == "Mean"


def test_unknown_tasks_are_refused_before_anything_is_answered(run: Path) -> None:
    with pytest.raises(NormprobeError, match="tasks that lm-eval knows, got no_such_task"):
        run_tasks(Study(methods=MethodSettings(tasks="no_such_task")), Session(Study(), Run(run)).profile)


def test_gains_are_paired_by_document_and_graded_metrics_keep_their_grades() -> None:
    ids = [f"t/{i}" for i in range(20)]
    treatments = {"plain": np.linspace(0, 0.5, 20), "ALRR": np.linspace(0, 0.5, 20)[::-1] + 0.1}
    frames = [
        pd.DataFrame(
            {
                "task": "t",
                "metric": "f1",
                "problem_id": ids,
                "treatment": treatment,
                "correct": values,
                "acted": 0.5,
                "sample": 0,
                "n_tokens": 100 if treatment == "plain" else 110,
                "extra_tokens": 0.0 if treatment == "plain" else 5.0,
            }
        )
        for treatment, values in treatments.items()
    ]
    head, (_, regimes) = task_table(pd.concat(frames))
    row = dict(zip(head, regimes, strict=True))
    assert row["Gain"].startswith("0.10 [")
    assert (row["n"], row["Acted on"]) == ("20", "50.00%")
    assert json.loads(row["Mean"]) == pytest.approx(0.35)
    assert (row["Tokens"], row["Passes"], row["× plain"]) == ("110", "5.00", "1.150")


def test_sampled_answers_have_an_average_and_pass_at_k_and_gains_by_document() -> None:
    """Of the documents' four samples 0, 1, 2, 4 are right without a method, and one more of the first three with it."""
    rows = [
        {
            "task": "t",
            "metric": "exact_match",
            "problem_id": f"t/{document}",
            "treatment": treatment,
            "sample": sample,
            "correct": float(sample < right + more),
            "acted": np.nan,
            "n_tokens": 10,
            "extra_tokens": 0.0,
        }
        for treatment, more in (("plain", 0), ("ALRR", 1))
        for document, right in enumerate((0, 1, 2, 4))
        for sample in range(4)
    ]
    head, (plain, treated) = task_table(pd.DataFrame(rows))
    before, after = (dict(zip(head, cells, strict=True)) for cells in (plain, treated))
    assert [before[name] for name in ("n", "avg@4", "pass@1", "pass@2", "pass@4")] == [
        *("4", "0.438", "0.438"),
        number((0 + 1 / 2 + 5 / 6 + 1) / 4),
        "0.750",
    ]
    assert [after[name] for name in ("avg@4", "pass@4")] == ["0.625", "1.00"]
    assert after["Gain"].startswith("0.19 [")
