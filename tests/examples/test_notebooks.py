"""The notebooks of examples/: each runs from top to bottom and shows what its text says; git keeps no output."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(name: str, folder: Path) -> dict[str, str]:
    """What a notebook shows when it is run in a folder, by the kind of output: texts joined, pictures counted."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, resources={"metadata": {"path": str(folder)}}
    ).execute()
    found = {"text": "", "html": "", "png": ""}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found["text"] += output["text"] if output.get("name") == "stdout" else ""
            found["html"] += data.get("text/html", "")
            found["png"] += "." * ("image/png" in data)
    return found


def test_a_response_is_looked_at(tmp_path):
    found = shown("look_at_one_response", tmp_path)
    thought, direct = found["text"].strip().split("\n\n")
    assert thought.startswith("think: ")
    assert "</think> answer : 8" in thought
    assert direct.startswith("no_think: ")
    assert all(name in found["html"] for name in ("surprisal", "think − no_think", "segment"))
    assert found["png"] == "."


def test_the_claims_are_tested(tmp_path):
    found = shown("test_a_claim_on_your_model", tmp_path)
    assert all(name in found["html"] for name in ("thinking_norm_is_higher", "high_norm_is_causal"))
    assert "Estimate: " in found["text"]
    assert found["png"] == "."
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()


def test_a_model_is_steered_and_measured(tmp_path):
    found = shown("steer_and_measure", tmp_path)
    assert int(re.findall(r"states shortened: (\d+)", found["text"])[0]) > 0
    (low,) = re.findall(r"high − random: \+\d\.\d+ \[([+-]\d\.\d+), [+-]\d\.\d+\], p = ", found["text"])
    assert float(low) > 0, "as the notebook says"
    assert "random states suppressed" in found["html"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_git_keeps_no_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
