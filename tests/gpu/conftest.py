"""The device of these tests: CUDA, or what NORMPROBE_TEST_DEVICE names; without either they are skipped.

On a CPU the Triton kernels run under Triton's interpreter: NORMPROBE_TEST_DEVICE=cpu TRITON_INTERPRET=1.
"""

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("NORMPROBE_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(name)


@pytest.fixture
def ops_triton(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`normprobe.policies.ops_triton`; on a CPU under the interpreter."""
    pytest.importorskip("triton")
    if device.type == "cpu":
        assert os.environ.get("TRITON_INTERPRET") == "1"
        _round_to_bfloat16(monkeypatch)
    from normprobe.policies import ops_triton

    # NumPy, which the interpreter computes with, warns where a device overflows silently.
    with warnings.catch_warnings(action="ignore"):
        yield ops_triton


def _round_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the interpreter round float32 to bfloat16, as a device does; by itself it cuts off."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def rounded(self: InterpreterBuilder, src: TensorHandle, dst_type: tl.dtype) -> TensorHandle:
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        half = torch.from_numpy(np.array(src.data)).to(torch.bfloat16)
        return TensorHandle(half.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounded)
