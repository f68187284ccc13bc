"""`lm_eval --model vllm` on the testbed's tasks, as a user types it: the answers of the Hugging Face engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from normprobe.experiments.lm_eval import NormprobeLM
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.problems import bundled

TASK, LIMIT = "normprobe_arithmetic_crowded", 16
TAU = {"9": 5.0, "10": 8.0}
# The command line of the reference code's README. What "loop" means here are the paper's settings.
SWITCHES = {
    "VLLM_PATCH": "loop",
    "PATCHED_LAYERS": ",".join(TAU),
    "PATCHED_TAU_JSON": json.dumps(TAU),
    "ADAPTIVE": "0",
}
STRONG = {"policy": "suppress", "tau": {"6": 8.0, "9": 10.0}, "scale": 0.5}


def by_vllm(folder: Path, switches: dict[str, str]) -> dict[int, dict[str, Any]]:
    """The samples that lm-eval's command writes, by document."""
    arguments = {
        "pretrained": bundled.find("tiny-thinker").folder,
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "enable_thinking": True,
        "think_end_token": "</think>",
    }
    lm_eval = Path(sys.executable).with_name("lm_eval")
    model = ",".join(f"{name}={value}" for name, value in arguments.items())
    options = f"--apply_chat_template --limit {LIMIT} --batch_size auto --log_samples".split()
    paths = ["--tasks", TASK, "--include_path", DIRECTORY, "--output_path", folder]
    subprocess.run(
        [lm_eval, "--model", "vllm", "--model_args", model, *paths, *options],
        env=os.environ | switches,
        check=True,
        capture_output=True,
    )
    (written,) = folder.glob(f"**/samples_{TASK}_*.jsonl")
    samples = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    return {sample["doc_id"]: sample for sample in samples}


@pytest.mark.parametrize(
    ("switches", "policy"),
    [
        (SWITCHES, {"policy": "alrr", "tau": TAU}),
        ({"NORMPROBE": json.dumps({"policy": STRONG})}, STRONG),
    ],
    ids=["switches of the reference", "NORMPROBE"],
)
def test_answers_are_those_of_the_hugging_face_engine(
    tmp_path: Path, switches: dict[str, str], policy: Any
) -> None:
    found = by_vllm(tmp_path, switches)
    results = simple_evaluate(
        NormprobeLM("tiny-thinker", policy, batch_size=LIMIT),
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(DIRECTORY), include_defaults=False),
        apply_chat_template=True,
        limit=LIMIT,
        bootstrap_iters=0,
    )
    assert results is not None
    samples = {sample["doc_id"]: sample for sample in results["samples"][TASK]}
    assert len(found) == len(samples) == LIMIT
    for number, sample in samples.items():
        assert found[number]["exact_match"] == sample["exact_match"]
        given, wanted = (
            [" ".join(text.split()) for text in one["filtered_resps"]] for one in (found[number], sample)
        )
        assert given == wanted
    assert 0 < sum(sample["exact_match"] for sample in samples.values()) < LIMIT
