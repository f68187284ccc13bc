"""Policies on a GPU: the same numbers as the torch form on the CPU, and no wait for the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import policy_steps as steps
import pytest
import torch

from normprobe.policies import ops

CPU = torch.device("cpu")
ON_CPU = ("recursion adaptive", "steering fixed", "clamp adaptive", "combined fixed")
"""The policies that the interpreter, which is slow, runs."""


@contextmanager
def no_wait(device: torch.device) -> Iterator[None]:
    """Inside, whatever waits for a GPU raises."""
    if device.type == "cpu":
        yield
        return
    with warnings.catch_warnings(action="ignore"):  # that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_measurement_would_see_a_wait(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("nothing waits for a CPU")
    with no_wait(device), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(3, device=device).sum().item()


@pytest.mark.parametrize("name", steps.POLICIES)
def test_a_policy_is_the_same_as_on_the_cpu_and_never_waits(
    name: str, device: torch.device, ops_triton: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, n = steps.POLICIES[name], 60
    if device.type == "cpu":
        n = 10
        if name not in ON_CPU:
            pytest.skip("too slow under the interpreter")
    expected = steps.act(policy, steps.passes(torch.float32, CPU, n), CPU)
    monkeypatch.setattr(ops, "_on_gpu", lambda tensor: True)
    step, passes = steps.Step(policy, device), steps.passes(torch.float32, device, n)
    with no_wait(device):
        changes = [change for rows in passes for change in step(rows)]
    steps.check_same((changes, step.summary()), expected)
