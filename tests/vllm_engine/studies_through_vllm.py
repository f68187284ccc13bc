"""A study through both engines, each opened as a study opens it: responses, experiments, methods and tasks."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

pytest.importorskip("vllm.version")

from normprobe.config import MethodSettings, ResponseSettings, Study
from normprobe.engines.engine_choice import engine_of
from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
from normprobe.experiments.method_parts import MethodInputs, method_treatments, plain_treatments, sample
from normprobe.experiments.method_settings import papers
from normprobe.experiments.suppression import fill_experiments
from normprobe.experiments.task_treatments import run_tasks
from normprobe.layer_profile import LayerProfile
from normprobe.local_files import IN_MEMORY
from normprobe.model_settings import ModelSettings
from normprobe.problems.testbed.source import BundledProblems
from normprobe.tracing.responses import fill_responses
from normprobe.tracing.trace import trace

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel


BY_VLLM = {
    "from its files": ModelSettings(engine="vllm"),
    "from weights that no file holds": ModelSettings(f"{IN_MEMORY}tiny", engine="vllm"),
    "on two devices": ModelSettings(engine="vllm", tensor_parallel_size=2),  # processes, on a CPU
}


def responses(opened: "OpenModel", settings: ModelSettings, folder: Path) -> pd.DataFrame:
    folder.mkdir()
    source = BundledProblems()
    problems = source.load({"sae": 8, "select": 8, "measure": 8}, 0)
    with engine_of(opened, settings) as engine:
        assert isinstance(engine, VllmEngine) is (settings.engine == "vllm")
        assert engine.context == opened.context
        fill_responses(folder, engine, problems, max_new_tokens=120, scorer=source.score, progress=False)
    return pd.read_parquet(folder / "responses.parquet")


@pytest.mark.parametrize("how", BY_VLLM)
def test_a_studys_responses_are_the_same_through_both_engines(
    opened: "OpenModel", tmp_path: Path, how: str
) -> None:
    """From the second on, the engine starts in a process in which it ran before."""
    found, wanted = (
        responses(opened, settings, tmp_path / settings.engine)
        for settings in (BY_VLLM[how], ModelSettings())
    )
    pd.testing.assert_frame_equal(found, wanted)


@pytest.fixture
def profile(opened: "OpenModel") -> LayerProfile:
    """Of thresholds so low that every method acts."""
    levels, norms = [0.0, 0.25, 0.5, 0.75, 1.0], [5.0, 9.0, 10.0, 11.0, 20.0]
    quantiles = {"think": [norms] * 12}
    return LayerProfile(1, opened.identity.to_dict(), levels, quantiles, quantiles, [14.0] * 12, None, [9], 8)


def test_suppression_and_methods_are_the_same_through_both_engines(
    opened: "OpenModel", profile: LayerProfile, tmp_path: Path
) -> None:
    """A few problems each; norms of changes within rounding, everything else equal."""
    study = Study(
        responses=ResponseSettings(max_new_tokens=100), methods=MethodSettings(tune=4, test=4, samples=1)
    )
    problems = study.source.load({"sae": 8, "select": 8, "measure": 8}, 0)
    problems.to_parquet(tmp_path / "problems.parquet")
    tables: dict[str, list[pd.DataFrame]] = {}
    for name in ("hf", "vllm"):
        folder = tmp_path / name
        folder.mkdir()
        with engine_of(opened, replace(study.model, engine=name)) as engine:
            fill_responses(folder, engine, problems, max_new_tokens=100, progress=False)
            responses = pd.read_parquet(folder / "responses.parquet")
            tokens, _ = trace(opened, responses[responses["mode"] == "think"], problems, progress=False)
            fill_experiments(
                folder,
                engine,
                profile,
                problems,
                tokens,
                max_new_tokens=100,
                seed=0,
                scorer=study.source.score,
                progress=False,
            )
            files = tmp_path / "problems.parquet", folder / "responses.parquet"
            inputs = MethodInputs(study, profile, *files, held=engine)
            alrr, erss, _ = papers(profile)
            tables[name] = [
                pd.read_parquet(folder / "suppression.parquet"),
                plain_treatments(inputs).drop(columns="seconds"),
                method_treatments((alrr,), {9: 0.4}, inputs).drop(columns="seconds"),
                method_treatments((alrr, erss), None, inputs).drop(columns="seconds"),
                sample(0, (alrr,), inputs),
            ]
    for given, wanted in zip(tables["vllm"], tables["hf"], strict=True):
        pd.testing.assert_frame_equal(given, wanted, rtol=1e-3)
    suppression, _, alrr_table, *_ = tables["vllm"]
    assert (suppression.groupby("treatment")["n_suppressed"].sum() > 0).sum() > 8
    assert (alrr_table.groupby("treatment")["n_triggered"].sum() > 0).all()
    assert "ALRR: entropy gate" in set(alrr_table["treatment"])


def test_tasks_give_the_same_table_through_both_engines(profile: LayerProfile) -> None:
    plan = MethodSettings(tasks="normprobe_recall", limit=3, samples=2, temperature=1.0)
    hf, vllm = (run_tasks(Study(methods=replace(plan, engine=name)), profile) for name in ("hf", "vllm"))
    pd.testing.assert_frame_equal(vllm, hf)
    acted = vllm.groupby("treatment")["acted"].first()
    assert (acted[["ALRR", "ALRR: entropy gate"]] > 0).all()


def test_a_model_on_another_device_is_refused(opened: "OpenModel") -> None:
    with (
        pytest.raises(
            NormprobeError, match="expected --device cpu, for which vLLM is installed here, got auto"
        ),
        engine_of(opened, ModelSettings(engine="vllm", device="auto")),
    ):
        pass
