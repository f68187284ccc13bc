"""Random rows of several requests, and policies applied to them once."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from normprobe.policies.policy import Policy
from normprobe.policies.rows import Rows

seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
REQUESTS = [f"request {slot}" for slot in range(5)]


def never(active: torch.Tensor, states: torch.Tensor) -> None:
    """No policy here asks for an extra pass."""
    raise AssertionError


def apply(
    policy: Policy, rows: Rows, layer: int, requests: Sequence[str] = REQUESTS
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new states and where they were changed, slot i being requests[i]."""
    running = policy.start(len(requests), rows.hidden.shape[1], torch.device("cpu"))
    running.reset(range(len(requests)), requests)
    change = running.apply(rows, layer, never)
    assert change.passes is None
    return change.hidden, change.triggered


def random_rows(seed: int, n: int = 40, d: int = 8, dtype: torch.dtype = torch.float32) -> Rows:
    """Rows of 5 requests, steps from −3 on, norms that vary a lot."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator) * torch.randn(n, 1, generator=generator).exp()
    return Rows(hidden.to(dtype), torch.arange(n) % 5, torch.arange(n) // 5 - 3)
