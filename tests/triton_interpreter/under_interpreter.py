"""The kernels on CPU tensors. tests/policies/test_ops.py runs this in a process that has TRITON_INTERPRET=1."""

import os

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
from triton_interpreter import kernel_checks as checks
from triton_interpreter import policy_steps as steps

from normprobe.policies import ops

assert os.environ["TRITON_INTERPRET"] == "1"
# NumPy, which the interpreter computes with, says so where a device overflows silently.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
CPU = torch.device("cpu")
cast = InterpreterBuilder.cast_impl
cases = pytest.mark.parametrize("dtype, rows, d", checks.CASES)


@pytest.fixture(autouse=True)
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From float32 to bfloat16 a device rounds, the interpreter cuts off: here it rounds too."""

    def rounded(self: InterpreterBuilder, src: TensorHandle, dst_type: tl.dtype) -> TensorHandle:
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        half = torch.from_numpy(np.array(src.data)).to(torch.bfloat16)
        return TensorHandle(half.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounded)


@cases
@pytest.mark.parametrize("blow_up", [1.5, 9.0, None])
def test_peaks(dtype: torch.dtype, rows: int, d: int, blow_up: float | None) -> None:
    checks.check_peaks(CPU, dtype, rows, d, blow_up)


@cases
@pytest.mark.parametrize("damping", [0.0, 0.3, 0.5, 1.0])
def test_keep(dtype: torch.dtype, rows: int, d: int, damping: float) -> None:
    checks.check_keep(CPU, dtype, rows, d, damping)


def test_edges() -> None:
    checks.check_edges(CPU)


@cases
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_inject(dtype: torch.dtype, rows: int, d: int, beta: float) -> None:
    checks.check_inject(CPU, dtype, rows, d, beta)


@pytest.mark.parametrize("rows, slots", [(1, torch.int64), (9, torch.int32)])
def test_learn(rows: int, slots: torch.dtype) -> None:
    checks.check_learn(CPU, rows, slots)


@pytest.mark.parametrize("name", ["recursion adaptive", "steering fixed", "clamp adaptive", "combined fixed"])
def test_policies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, told = steps.POLICIES[name], steps.passes(torch.float32, CPU, 10)
    expected = steps.act(policy, told, CPU)
    monkeypatch.setattr(ops, "_on_gpu", lambda tensor: True)
    steps.check_same(steps.act(policy, told, CPU), expected)
