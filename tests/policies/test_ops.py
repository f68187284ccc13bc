"""The Triton kernels without a GPU: their numbers under Triton's interpreter, their types by compiling them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")


def run(arguments: list[str], **environment: str) -> str:
    """What a new process prints, which knows nothing of this one's plugins and workers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=kept | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_under_the_interpreter_they_do_what_the_torch_form_does(tmp_path: Path) -> None:
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={tmp_path}"]
    files = [str(TESTS / "gpu" / name) for name in ("test_kernels.py", "test_policies.py")]
    printed = run(["-m", "pytest", *quiet, *files], TRITON_INTERPRET="1", NORMPROBE_TEST_DEVICE="cpu")
    assert " passed" in printed


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from normprobe.policies import ops_triton

for name, types, constants in (
    ("_peaks", "*H *fp32 *i1 *fp32 *i1 fp32 i32 i32 constexpr constexpr", {"BOUNDED": True, "BLOCK": 4096}),
    ("_keep", "*H *H *fp32 *fp32 *i1 *H *fp32 *i1 fp32 fp32 fp32 i32 i32 constexpr", {"BLOCK": 4096}),
    ("_inject", "*H *fp32 *i64 *i1 *H *fp32 *H *i1 fp32 fp32 i32 i32 constexpr", {"BLOCK": 4096}),
    ("_learn", "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *i64 *i64 *fp32 *i1 fp32 fp32 i32 i32 constexpr", {"BINS": 128}),
):
    kernel = getattr(ops_triton, name)
    for dtype in ("fp32", "bf16", "fp16"):
        signature = dict(zip(kernel.arg_names, types.replace("H", dtype).split(), strict=True))
        made = triton.compile(
            ASTSource(fn=kernel, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": 8, "enable_fp_fusion": False},
        )
        assert len(made.asm["cubin"]) > 0
        print(name, dtype)
"""


def test_they_compile_to_machine_code(tmp_path: Path) -> None:
    """For compute capability 9.0. The interpreter lets pass what the compiler refuses: it does not care about types."""
    printed = run(["-W", "error", "-c", COMPILE], TRITON_CACHE_DIR=str(tmp_path))
    assert len(printed.splitlines()) == 12


TRACE = """
import torch
import torch.utils._triton

torch.utils._triton.has_triton = lambda: True  # else torch.compile takes no kernel for one, without a device
from normprobe.policies import ops
import policy_steps as steps

ops._on_gpu = lambda tensor: True


def count(graph, inputs):
    print(sum("triton" in str(node.target) for node in graph.graph.nodes))

    def run(*inputs):
        raise InterruptedError  # it takes a device

    return run


step = steps.Step(steps.POLICIES["recursion adaptive"], torch.device("cpu"))
(layers,) = steps.passes(torch.float32, torch.device("cpu"), 1)
try:
    torch.compile(step.__call__, fullgraph=True, backend=count)(layers)
except InterruptedError:
    pass
"""


def test_torch_compile_takes_them_into_its_graph() -> None:
    """Two layers with one launch each for the peaks and for each of two extra passes, and one for the threshold."""
    path = os.pathsep.join(map(str, (TESTS, TESTS.parent / "src")))
    assert run(["-c", TRACE], PYTHONPATH=path).split() == ["7"]
