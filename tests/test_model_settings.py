"""Which model a study is of, and what writes its responses."""

from importlib.util import find_spec

import pytest

from normprobe.config import MethodSettings, Study
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.generate import main
from normprobe.model_settings import ModelSettings
from normprobe.study_file import changed
from normprobe.study_stages import STAGES


def test_another_engine_makes_other_responses_and_the_default_one_those_it_always_made() -> None:
    model = ModelSettings()
    assert "engine" not in model.identity()
    assert ModelSettings(engine="vllm").identity() == model.identity() | {"engine": "vllm"}
    early = ModelSettings(engine="vllm").early_checkpoint
    assert early is not None
    assert early.engine == "hf"
    with pytest.raises(NormprobeError, match="hf or vllm"):
        changed(Study(), {"model": {"engine": "other"}})


def test_an_evaluation_takes_the_engine_of_its_run_unless_it_names_one() -> None:
    by_vllm = Study(model=ModelSettings(engine="vllm"))
    assert by_vllm.evaluated.engine == "vllm"
    assert Study(methods=MethodSettings(engine="vllm")).evaluated.engine == "vllm"
    assert Study(methods=MethodSettings(engine="hf"), model=by_vllm.model).evaluated.engine == "hf"
    for name in ("methods", "tasks"):
        assert "engine" not in STAGES[name].settings(Study())
        assert STAGES[name].settings(by_vllm)["engine"] == "vllm"


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_refused_before_the_model_is_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(main, ["--engine", "vllm", "--model", "no/such", "x"]) == 2
    assert "expected vLLM for --engine vllm, got none" in capsys.readouterr().err
