"""The V2 model runner, which a GPU has by default: tests of the engine again, on a CPU with Triton's interpreter.

vLLM wants Triton with a backend for the CPU. `make .venv-vllm/.ready` puts Triton into a folder of its own, and
triton_stand_in/ is a backend that compiles nothing; both are on the path of these tests alone, in another process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm.version")

TRITON = Path(sys.prefix) / "triton"
STAND_IN = Path(__file__).parent / "triton_stand_in"
LORA = "test_lora.py::test_each_request_has_its_adapter_in_the_passes_of_its_policy"
PREEMPTED = "test_engine.py::test_preempted_requests_get_what_they_get_undisturbed"
SMALL = {
    "test_engine.py::test_a_policy_that_never_acts_leaves_every_token": 5,
    "test_engine.py::test_tokens_are_those_of_the_hugging_face_engine": 7,
    "test_engine.py::test_each_request_of_a_mixed_batch_gets_what_it_gets_alone": 1,
    f"{PREEMPTED}[suppression]": 1,
    f"{PREEMPTED}[adaptive recursion]": 1,
    f"{PREEMPTED}[steering at peaks]": 1,
    "test_engine.py::test_extra_passes_leave_every_bit_of_the_cache": 1,
    "test_engine.py::test_an_extra_pass_that_writes_would_be_seen": 1,
    "test_graph_choice.py::test_v2_takes_the_graph_of_a_whole_step_only_where_it_may": 2,
    f"{LORA}[recursion]": 1,
    "test_protocol.py::test_samples_are_those_of_the_hugging_face_engine[0.6]": 1,
    "test_protocol.py::test_policies_leave_the_same_events": 1,
    "test_protocol.py::test_controls_do_what_they_do_in_the_hugging_face_engine[uncertain tokens]": 1,
    "test_requests.py::test_a_probe_measures_what_it_does_in_the_hugging_face_engine": 1,
    "test_requests.py::test_aborted_requests_leave_nothing": 1,
}
"""Tests, and how many cases each has. The fixture that starts their engines checks the class of the runner."""


@pytest.mark.skipif(not TRITON.is_dir(), reason=f"needs Triton in {TRITON}")
def test_the_tests_of_the_engine_pass_on_the_v2_runner() -> None:
    path = [str(STAND_IN), str(TRITON), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {
        "VLLM_USE_V2_MODEL_RUNNER": "1",
        "TRITON_INTERPRET": "1",
        "TRITON_DEFAULT_BACKEND": "cpu",
        "PYTHONPATH": os.pathsep.join(path),
    }
    tests = [str(Path(__file__).parent / name) for name in SMALL]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "-W", "default", "-q", "-p", "no:cacheprovider"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = f" {done.stdout.splitlines()[-1]}"
    assert f" {sum(SMALL.values())} passed" in summary
    assert "skipped" not in summary
