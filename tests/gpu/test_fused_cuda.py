"""The Triton kernels on a GPU: the same numbers as the torch form on the CPU, and no wait for the device."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from triton_interpreter import policy_steps as steps

if not torch.cuda.is_available() or find_spec("triton") is None:
    pytest.skip("no CUDA device with Triton", allow_module_level=True)

from triton_interpreter import kernel_checks as checks

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
cases = pytest.mark.parametrize("dtype, rows, d", [*checks.CASES, (torch.bfloat16, 33, 4096)])


@cases
@pytest.mark.parametrize("blow_up", [1.5, None])
def test_peaks(dtype: torch.dtype, rows: int, d: int, blow_up: float | None) -> None:
    checks.check_peaks(CUDA, dtype, rows, d, blow_up)


@cases
@pytest.mark.parametrize("damping", [0.0, 0.3, 0.5, 1.0])
def test_keep(dtype: torch.dtype, rows: int, d: int, damping: float) -> None:
    checks.check_keep(CUDA, dtype, rows, d, damping)


def test_edges() -> None:
    checks.check_edges(CUDA)


@cases
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_inject(dtype: torch.dtype, rows: int, d: int, beta: float) -> None:
    checks.check_inject(CUDA, dtype, rows, d, beta)


@pytest.mark.parametrize("rows, slots", [(1, torch.int64), (9, torch.int32), (33, torch.int64)])
def test_learn(rows: int, slots: torch.dtype) -> None:
    checks.check_learn(CUDA, rows, slots)


@pytest.fixture
def no_wait() -> Iterator[None]:
    """Whatever waits for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_the_measurement_would_see_a_wait(no_wait: None) -> None:
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(3, device=CUDA).sum().item()


@pytest.mark.parametrize("name", steps.POLICIES)
def test_a_policy_is_the_same_as_on_the_cpu_and_never_waits(name: str) -> None:
    policy, n = steps.POLICIES[name], 60
    there = steps.Step(policy, CUDA)
    told = steps.passes(torch.float32, CUDA, n)
    torch.cuda.set_sync_debug_mode("error")
    try:
        changes = [change for asked in told for change in there(asked)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    here = steps.Step(policy, CPU)
    expected = [change for asked in steps.passes(torch.float32, CPU, n) for change in here(asked)]
    steps.check_same((changes, there.summary()), (expected, here.summary()))
