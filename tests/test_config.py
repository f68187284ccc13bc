"""The tree of settings: Python, YAML and the command line write the same one, and what is wrong is told in one line."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from normprobe.config import QUICK, SaeSettings, Study
from normprobe.console import parse, run_main
from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings
from normprobe.problems.bundled import MODELS
from normprobe.settings import flat
from normprobe.study_file import changed, read_study
from normprobe.verify import StudyCommand, main

STUDIES = sorted((Path(__file__).parents[1] / "sae_training").glob("*.yaml"))
PATHS = [path for path, _ in flat(dataclasses.asdict(Study()))]


def from_options(*argv: str, default: Study | None = None) -> Study:
    return parse(StudyCommand, list(argv), "verify", StudyCommand(default or Study())).study


def test_python_yaml_and_options_write_one_tree(tmp_path):
    by_hand = Study(
        model=ModelSettings(name="m", offline=True), saes=SaeSettings(given="d", width=64, k=4), seed=3
    )
    path = tmp_path / "study.yaml"
    path.write_text("model: {name: m, offline: true}\nsaes: {given: d, width: 64, k: 4}\nseed: 3\n")
    assert read_study(path) == by_hand
    options = ["--model", "m", "--offline", "--saes", "d", "--width", "64", "--k", "4", "--seed", "3"]
    assert from_options(*options) == by_hand


def test_a_written_study_is_read_back(tmp_path):
    study = changed(Study(), QUICK)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(study)))
    assert read_study(path) == study != Study()


def test_a_file_that_would_write_outside_of_its_run_is_refused(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"saes: {{cache: {tmp_path / 'elsewhere'}}}\n")
    with pytest.raises(NormprobeError, match=r"expected no saes.cache in .*study.yaml.*give --cache DIR"):
        read_study(path)
    assert from_options("--cache", "elsewhere").saes.cache == "elsewhere"


def test_options_override_what_a_file_says():
    wide = changed(Study(), {"saes": {"width": 64, "k": 8}})
    assert from_options("--k", "2", default=wide).saes == SaeSettings(width=64, k=2)


def test_every_setting_of_a_study_has_an_option_with_its_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    flags = set(re.findall(r"^[^\w-]*(--[a-z][a-z-]*)", shown, re.MULTILINE))
    sections = ("methods.", "audit.", "features.", "dictionaries.", "importance.", "paradigm.")
    later = [path for path in PATHS if path.startswith(sections)]
    assert len(flags) == len(PATHS) - len(later) + len(
        dataclasses.fields(StudyCommand)
    )  # study, but --strict
    assert {"--model", "--problems", "--saes", "--width", "--seed", "--config", "--dry-run"} <= flags
    assert "features active per token" in shown


@pytest.mark.parametrize(
    "command",
    [
        "verify",
        "train-saes",
        "profile",
        "evaluate",
        "audit",
        "features",
        "dictionaries",
        "importance",
        "paradigm",
    ],
)
def test_help_is_quick_and_imports_nothing_heavy(command):
    program = (
        "import sys, json\nfrom normprobe.cli import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit as stopped:\n    assert stopped.code == 0\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'scipy') if name in sys.modules])"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 2.0  # seconds of the processor: 0.4 on an idle core, twice that where many share it


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"saes": {"widht": 3}},
            "expected only settings of a study in s, got saes.widht; did you mean saes.width?",
        ),
        ({"n_sae": 3}, "expected only settings of a study in s, got n_sae; did you mean problems.n_sae?"),
        ({"saes": {"width": "wide"}}, "expected saes.width as a whole number, got 'wide'; correct it"),
        ({"saes": {"k": True}}, "expected saes.k as a whole number, got True; correct it"),
        ({"saes": {"k": 0}}, "expected saes.k above 0, got 0; correct it"),
        ({"saes": {"k": 600}}, "expected saes.k of 1 to 512 (the width), got 600; correct one of them"),
        (
            {"saes": {"layers": "1-" + "9" * 5000}},
            f"expected saes.layers as in 20-23,27, got '1-{'9' * 58}'; correct it",
        ),
        ({"saes": {"layers": "9-7"}}, "expected saes.layers as in 20-23,27, got '9-7'; correct it"),
        (
            {"saes": {"encoder": "bfloat16", "trainer": "sae_lens"}},
            "expected saes.encoder float32 with SAELens's trainer, the reference, got bfloat16; correct one of them",
        ),
        ({"saes": {"memory_gb": 0.0}}, "expected saes.memory_gb above 0, got 0.0; correct it"),
        ({"seed": -1}, "expected seed 0 or more, got -1; correct it"),
        (
            {"model": {"dtype": "float8"}},
            "expected model.dtype as float32 or bfloat16 or float16, got 'float8'; correct it",
        ),
        ({"model": {"name": None}}, "expected model.name as text, got None; correct it"),
        ({"model": "m"}, "expected the section model of s as lines 'key: value', got 'm'; indent its keys"),
    ],
)
def test_a_wrong_value_is_told_by_its_path(values, message, tmp_path, capsys):
    with pytest.raises(NormprobeError) as refused:
        changed(Study(), values, "s")
    assert str(refused.value) == message
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    assert run_main(main, ["--config", str(path), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("normprobe: expected ")
    assert str(path) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n- 2", b"", b"\xff\xfe\x00"])
def test_an_unreadable_file_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(NormprobeError, match=r"^expected .*study\.yaml") as refused:
        read_study(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(NormprobeError, match="No such file"):
        read_study(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("options", "nearest"), [(["--widht", "3"], "--width"), (["--max-new-token", "3"], "--max-new-tokens")]
)
def test_an_unknown_option_names_the_nearest_one(options, nearest):
    with pytest.raises(NormprobeError, match=rf"perhaps you meant {nearest}\b"):
        main(options)


@pytest.mark.parametrize("options", [["--width", "wide"], ["--dtype", "float8"], ["stray"], ["--k", "5000"]])
def test_bad_options_get_one_line_and_leave_nothing(options, tmp_path, capsys):
    assert run_main(main, [*options, "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("normprobe: ")
    assert shown.err.count("\n") == 1
    assert options[-1] in shown.err
    assert list(tmp_path.iterdir()) == []


def test_layers_are_numbers_in_order():
    assert SaeSettings(layers="20-23, 27,21").layer_list == [20, 21, 22, 23, 27]
    assert SaeSettings().layer_list is None
    assert SaeSettings(layers="1,3").layers_of(4) == [1, 3]
    assert SaeSettings().layers_of(4) == [0, 1, 2, 3]
    with pytest.raises(NormprobeError, match="expected layers between 0 and 3, got 2-5"):
        SaeSettings(layers="2-5").layers_of(4)
    with pytest.raises(NormprobeError, match="below 10,000"):
        SaeSettings(layers="2-999999999999")


def test_bundled_models_bring_their_problems_and_their_early_checkpoint():
    assert Study().source.name == "testbed"
    early = Study().model.early_checkpoint
    assert early is not None
    assert early.name == "tiny-thinker:early"
    other = Study(model=ModelSettings(name="m", early="n", offline=True, revision="r"))
    assert other.model.early_checkpoint == ModelSettings(name="n", offline=True)
    with pytest.raises(NormprobeError, match="expected --problems FILE for the model m, got none"):
        _ = other.source


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_repository_is_read(path):
    study = read_study(path)
    assert study.saes.given or study.saes.width % 8 == 0
    bundled = MODELS.get(study.model.name)
    assert study.problems.source == (bundled.problems if bundled else None)
