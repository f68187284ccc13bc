"""What `import normprobe` offers: a few names, each from where it is defined, at no cost before it is used."""

import json
import subprocess
import sys

import pytest

import normprobe
from normprobe.config import Study
from normprobe.errors import NormprobeError


def in_fresh_interpreter(program: str) -> list:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_the_package_imports_nothing_of_others() -> None:
    heavy = ["torch", "transformers", "numpy", "pandas", "matplotlib"]
    program = (
        "import json, sys, normprobe; {}print(json.dumps([m for m in "
        + repr(heavy)
        + " if m in sys.modules]))"
    )
    assert in_fresh_interpreter(program.format("")) == []
    assert "torch" in in_fresh_interpreter(program.format("normprobe.open_model; "))


def test_every_public_name_is_what_its_module_defines() -> None:
    assert set(normprobe.__all__) <= set(dir(normprobe))
    for name in normprobe.__all__:
        assert callable(getattr(normprobe, name))
    assert normprobe.LayerProfile.__module__ == "normprobe.layer_profile"
    with pytest.raises(AttributeError, match="no attribute 'verfy'"):
        normprobe.verfy  # noqa: B018


@pytest.mark.parametrize("before", ["", "import normprobe.verify; ", "from normprobe.verify import main; "])
def test_verify_can_be_called_though_a_module_has_its_name(before: str) -> None:
    """`python -m normprobe.verify` needs a module of this name, `normprobe.verify(...)` a function."""
    program = (
        f"import json; import normprobe; {before}normprobe.verify; from normprobe.verify import verify\n"
        "try:\n    normprobe.verify()\n"
        "except TypeError as error:\n    print(json.dumps([verify.__name__, str(error)]))"
    )
    name, error = in_fresh_interpreter(program)
    assert name == "verify"
    assert "verify() missing" in error


def test_settings_of_a_study_are_refused_by_name_before_anything_is_written(tmp_path):
    out = tmp_path / "run"
    for settings, message in (
        ({"problem": "testbed"}, "got problem; did you mean .*problems"),
        ({"problems": {"n_mesure": 8}}, "got problems.n_mesure; did you mean problems.n_measure"),
        ({"problems": tmp_path / "none.jsonl"}, "none.jsonl"),
        ({"seed": "one"}, "expected seed as a whole number"),
    ):
        with pytest.raises(NormprobeError, match=message):
            normprobe.verify("tiny-thinker", out, **settings)
    with pytest.raises(NormprobeError, match="expected a study alone"):
        normprobe.verify(Study(), out, seed=1)
    assert not out.exists()


def test_a_directory_that_is_no_run_is_refused(tmp_path) -> None:
    with pytest.raises(NormprobeError, match="expected"):
        normprobe.load_run(tmp_path)
