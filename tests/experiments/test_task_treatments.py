"""Tasks of lm-evaluation-harness under the methods and their baselines, on the bundled model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from normprobe import evaluate
from normprobe.config import MethodSettings, Study
from normprobe.errors import NormprobeError
from normprobe.experiments.task_treatments import run_tasks
from normprobe.labels import in_words
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import open_model
from normprobe.pipeline import Pipeline
from normprobe.report.method_results import task_table
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
    evaluate.main([str(run), "--tasks", "normprobe_recall", "--limit", "3"])
    printed = capsys.readouterr().out
    table = pd.read_parquet(run / "tasks" / "tasks.parquet")
    treatments = list(table["treatment"].unique())
    assert treatments[0] == "plain"
    assert {"ALRR", "ALRR: random gate", "ERSS at_peaks: rotation", "ERSS low_streak"} < set(treatments)
    assert "ALRR: entropy gate" not in treatments  # the harness cannot tell an entropy
    ids = set(table["problem_id"])
    assert ids == {f"normprobe_recall/{i}" for i in range(3)}
    assert all(set(rows["problem_id"]) == ids for _, rows in table.groupby("treatment"))
    assert (table.loc[table["treatment"] == "plain", "correct"] == 1.0).all()
    assert table.loc[table["treatment"] == "ALRR", "acted"].between(0, 1, inclusive="neither").all()
    assert all(in_words(treatment) in printed for treatment in treatments)


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
            }
        )
        for treatment, values in treatments.items()
    ]
    head, (_, regimes) = task_table(pd.concat(frames))
    row = dict(zip(head, regimes, strict=True))
    assert row["Gain"].startswith("0.10 [")
    assert (row["n"], row["Acted on"]) == ("20", "50.00%")
    assert json.loads(row["Mean"]) == pytest.approx(0.35)
