"""`normprobe doctor`: what it finds in models, and how a user's own thinking format reaches prompts."""

import json
from pathlib import Path

import pytest

from normprobe.console import run_main
from normprobe.doctor import main
from normprobe.errors import NormprobeError
from normprobe.model_settings import ThinkingSettings

PLAIN = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"


@pytest.fixture
def without_marks(tiny_qwen3_dir: Path) -> Path:
    """A model whose chat template marks no thought."""
    (tiny_qwen3_dir / "chat_template.jinja").write_text(PLAIN)
    return tiny_qwen3_dir


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The facts by name."""
    assert run_main(main, list(arguments)) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:20].strip(): line[21:].strip() for line in lines if line.startswith("  ")}


def test_the_bundled_model_is_described(capsys):
    facts = found(capsys, "tiny-thinker")
    assert facts["context"] == "512 tokens"
    assert facts["thought"] == "'<think>' … '</think>'"
    assert facts["no_think"].endswith("<think> </think>'")
    assert facts["filler"].endswith("<think> . . . </think>'")
    assert facts["sites"].startswith("12, proved")
    assert facts["traces"].split()[1] in ("s", "min")


def test_for_scripts_the_same_facts_are_one_document(capsys):
    assert run_main(main, ["--json", "tiny-thinker"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"]["context"] == 512
    assert document["thinking_format"]["close"] == "</think>"
    assert document["prompts"]["no_think"].endswith("<think> </think>")
    assert [sink["position"] for sink in document["residual_stream"]["sinks"]] == [0]
    assert len(document["residual_stream"]["median_norm"]) == document["residual_stream"]["sites"] == 12
    assert document["cost"]["traces"]["seconds"] > 0


def test_a_model_without_marks_is_refused_and_asked_by_instruction_only_if_told(capsys, without_marks):
    assert run_main(main, [str(without_marks)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("normprobe:")]
    assert "--thinking-format elicited" in line
    assert found(capsys, str(without_marks), "--thinking-format", "elicited")["found by"] == "elicited"


def test_marks_system_text_and_keywords_can_be_given(capsys, tiny_qwen3_dir, tmp_path):
    facts = found(
        capsys,
        str(tiny_qwen3_dir),
        "--think-start",
        "<think>",
        "--think-end",
        "</think>",
        "--system-prompt",
        "math",
    )
    assert facts["found by"] == "given"
    assert "system math" in facts["think"]
    own = tmp_path / "format.yaml"
    own.write_text("open: '['\nclose: ']'\nno_think: {prefill: '[ ]', forced: true}\nthink: {}\n")
    facts = found(capsys, str(tiny_qwen3_dir), "--thinking-format", str(own))
    assert facts["thought"] == "'[' … ']'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "quen"}, "expected a thinking format of harmony, "),
        ({"start": "<a>"}, "--think-start and --think-end"),
        ({"chat_template_kwargs": "{a"}, "as JSON"),
        ({"chat_template_kwargs": "[1]"}, "kwargs"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_model_is_opened(given, message):
    with pytest.raises(NormprobeError, match=message):
        ThinkingSettings(**given)


def test_a_keyword_that_tells_the_modes_apart_serves_no_other_purpose(capsys, tiny_qwen3_dir):
    arguments = [str(tiny_qwen3_dir), "--chat-template-kwargs", json.dumps({"enable_thinking": True})]
    assert run_main(main, arguments) == 2
    assert "tells the modes apart" in capsys.readouterr().err
