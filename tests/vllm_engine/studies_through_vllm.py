"""A study through both engines, each opened as a study opens it: responses and tasks."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

pytest.importorskip("vllm.version")

from normprobe.config import MethodSettings, Study
from normprobe.engines.engine_choice import engine_of
from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
from normprobe.experiments.task_treatments import run_tasks
from normprobe.layer_profile import LayerProfile
from normprobe.local_files import IN_MEMORY
from normprobe.model_settings import ModelSettings
from normprobe.problems.testbed.source import BundledProblems
from normprobe.tracing.responses import fill_responses

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
