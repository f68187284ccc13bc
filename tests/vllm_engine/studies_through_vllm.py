"""A study's responses through both engines, each opened as a study opens it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

pytest.importorskip("vllm.version")

from normprobe.engines.engine_choice import engine_of
from normprobe.engines.vllm.engine import VllmEngine
from normprobe.errors import NormprobeError
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


def test_a_model_on_another_device_is_refused(opened: "OpenModel") -> None:
    with (
        pytest.raises(
            NormprobeError, match="expected --device cpu, for which vLLM is installed here, got auto"
        ),
        engine_of(opened, ModelSettings(engine="vllm", device="auto")),
    ):
        pass
