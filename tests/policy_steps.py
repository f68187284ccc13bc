"""Small policies, and rows for them: run in two ways (two devices, compiled or not) that must give the same."""

import torch
from profile_fixture import profile

from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Policy
from normprobe.policies.probe import Probe
from normprobe.policies.rows import Change, Rows
from normprobe.policies.suppression import Clamp, Suppression
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

History = tuple[list[Change], dict[str, torch.Tensor]]

LAYERS = (0, 2)
FIXED = FixedThreshold({0: 20.0, 2: 30.0})
ADAPTIVE = AdaptiveThreshold.of(profile(), LAYERS, k=0.0, prior_tokens=4.0)
N_SLOTS, WIDTH = 4, 12
POLICIES: dict[str, Policy] = {
    f"{kind} {name}": policy
    for name, threshold in (("fixed", FIXED), ("adaptive", ADAPTIVE))
    for kind, policy in {
        "recursion": ALRR(threshold, blow_up=3.0, max_passes=2, growth=0.05, damping=0.6),
        "probe": Probe(threshold, 4),
        "suppression": Suppression(threshold),
        "clamp": Clamp(threshold),
        "steering": ERSS(threshold, "at_peaks", 1, 0.9, 0, -0.2, 0.4, bank_size=3),
        "combined": Combined(
            (
                Probe(threshold),
                ALRR(threshold, blow_up=3.0),
                ERSS(threshold, "low_streak", 2, 0.9, 1, -1.0),
            )
        ),
    }.items()
}


def rerun(active: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The extra pass of a layer in a compiled engine, which computes all rows, active or not."""
    return 1.13 * hidden


def passes(dtype: torch.dtype, device: torch.device, n: int) -> list[list[tuple[int, Rows]]]:
    """The rows of n passes at two layers: four requests, one of them in its prompt, and padding."""
    generator = torch.Generator().manual_seed(0)
    slot = torch.tensor([0, 1, 2, 3, -1], device=device)
    found = []
    for step in range(n):
        at = torch.tensor([step, step, step, step - n // 2, -1], device=device)
        size = 9 * torch.randn(len(LAYERS), 5, 1, generator=generator).mul(0.4).exp()
        hidden = (torch.randn(len(LAYERS), 5, WIDTH, generator=generator) * size).to(dtype)
        found.append([(layer, Rows(hidden[i].to(device), slot, at)) for i, layer in enumerate(LAYERS)])
    return found


class Step:
    """A policy in use: its changes in each pass, and in the end the summary of a probe."""

    def __init__(self, policy: Policy, device: torch.device) -> None:
        self.running = policy.start(N_SLOTS, WIDTH, device)
        self.running.reset(range(N_SLOTS), ["a", "b", "c", "d"])

    def __call__(self, layers: list[tuple[int, Rows]]) -> list[Change]:
        changes = [self.running.apply(rows, layer, rerun) for layer, rows in layers]
        self.running.finish()
        return changes

    def summary(self) -> dict[str, torch.Tensor]:
        found = self.running.summary(range(N_SLOTS))
        return {} if found is None else {name: kept for name, kept in vars(found).items() if name != "layers"}


def act(policy: Policy, passes: list[list[tuple[int, Rows]]], device: torch.device) -> History:
    """The changes of all passes, and the summary."""
    step = Step(policy, device)
    return [change for layers in passes for change in step(layers)], step.summary()


def check_same(found: History, expected: History) -> None:
    """Check that two histories are equal up to rounding, and that a policy acted in them or a probe has a summary."""
    for one, other in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(one.hidden, other.hidden, check_device=False)
        idle = ~other.triggered
        assert torch.equal(one.triggered.cpu(), other.triggered)
        assert torch.equal(one.hidden.cpu()[idle], other.hidden[idle])
        if other.passes is not None:
            assert one.passes is not None
            assert torch.equal(one.passes.cpu(), other.passes)
    # Sums over many steps.
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5, equal_nan=True)
    acted = sum(int(change.triggered.sum()) for change in expected[0])
    assert expected[1] or acted > len(expected[0]) / 4
