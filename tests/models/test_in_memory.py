"""A model in memory: known by all that it holds, studied like one of files, and refused where only files would do."""

import json
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import normprobe
from normprobe import evaluate, verify
from normprobe.config import Study
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.local_files import IN_MEMORY
from normprobe.models.in_memory import settings_of
from normprobe.models.open import open_model
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.study_file import changed

SMALL = {
    "problems": {"source": "testbed", "n_sae": 8, "n_select": 8, "n_measure": 8},
    "saes": {"width": 16, "k": 4, "n_samples": 256},
    "progress": False,
}


def name_of(model, tokenizer=None) -> str:
    return settings_of(open_model(model, tokenizer, check=False))["name"]


@torch.no_grad()
def test_a_model_is_known_by_every_weight_and_setting_and_not_by_where_it_came_from(
    make_tiny_qwen3, tiny_qwen3_dir
):
    tokenizer = build_tokenizer()
    name = name_of(make_tiny_qwen3(), tokenizer)
    assert name.startswith(f"{IN_MEMORY}Qwen3ForCausalLM:")
    assert name == name_of(make_tiny_qwen3(), tokenizer) == name_of(tiny_qwen3_dir)
    for change in (
        lambda model: model.model.norm.weight[3].add_(1e-6),
        lambda model: setattr(model.config, "rms_norm_eps", 1e-5),
        lambda model: model.bfloat16(),
    ):
        change(other := make_tiny_qwen3())
        assert name_of(other, tokenizer) != name
    marked = open_model(make_tiny_qwen3(), tokenizer, check=False, thinking={"system": "Think."})
    assert settings_of(marked)["name"] != name


def test_a_bridge_is_known_and_its_settings_are_those_of_a_study(tiny_qwen3_dir: Path):
    settings = settings_of(open_model(TransformerBridge.boot_transformers(str(tiny_qwen3_dir), device="cpu")))
    study = changed(Study(), {"model": settings})
    assert (study.model.dtype, study.model.device) == ("float32", "cpu")
    assert study.model.is_in_memory
    assert study.model.identity()["model"].startswith(settings["name"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A study of tiny-thinker as somebody holds it."""
    path, opened = tmp_path_factory.mktemp("runs") / "held", open_model("tiny-thinker", check=False)
    normprobe.verify(opened.model, path, tokenizer=opened.tokenizer, **SMALL)
    return path


def test_a_study_of_it_is_finished_and_not_run_twice(run):
    assert (run / "report.html").is_file()
    assert json.loads((run / "manifest.json").read_text())["identities"]["model"]["n_layers"] == 12
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    results = normprobe.verify(open_model("tiny-thinker", check=False), run, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert list(results.verdicts["claim"]) == []  # of so few problems nothing is judged


@pytest.mark.parametrize("command", ["audit", "features", "dictionaries", "importance", "main"])
def test_what_another_program_would_add_needs_its_files(command, run, capsys):
    before = sorted(run.iterdir())
    assert run_main(getattr(evaluate, command), [str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "got a study of a model that was in memory; save it with save_pretrained" in line
    assert sorted(run.iterdir()) == before


def test_a_replay_of_its_study_is_refused_before_anything_is_written(run, tmp_path, capsys):
    arguments = ["--config", str(run / "config.yaml"), "--out"]
    assert run_main(verify.main, [*arguments, str(tmp_path / "again")]) == 2
    assert "for the stage responses, got a study of a model that was in memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run_main(verify.main, [*arguments, str(run)]) == 0  # it is finished: its verdicts are printed


def test_bad_input_is_refused_before_anything_is_written(tiny_qwen3, tmp_path):
    out, tokenizer = tmp_path / "run", build_tokenizer()
    for model, given, message in (
        (tiny_qwen3, {}, r"expected the tokenizer of a model that is already open"),
        (tiny_qwen3, {"tokenizer": tokenizer}, r"expected --problems FILE for the model in-memory:Qwen3"),
        (tiny_qwen3, {"tokenizer": tokenizer, "seeds": 1}, r"got seeds; did you mean seed"),
        ("tiny-thinker", {"tokenizer": tokenizer}, r"expected a tokenizer only with a model in memory"),
        (
            torch.nn.Linear(2, 2),
            {},
            r"expected a name, a directory, a Transformers model or a Tr.*, got Linear",
        ),
        (open_model(tiny_qwen3, tokenizer), {"tokenizer": tokenizer}, r"expected an open model alone"),
    ):
        with pytest.raises(NormprobeError, match=message):
            normprobe.verify(model, out, progress=False, **given)
    assert not out.exists()
