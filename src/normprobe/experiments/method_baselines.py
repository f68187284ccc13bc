"""What each method has to beat at equal compute (arXiv 2606.06188): its own doing, with the norm taken out.

Extra passes for random tokens, for uncertain tokens, for all; injections of a random earlier state, of length alone, of
a random direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from normprobe.policies.alrr import ALRR
from normprobe.policies.controls.gated_recursion import AlwaysGate, EntropyGate, GatedRecursion, RandomGate
from normprobe.policies.erss import ERSS
from normprobe.policies.rows import Policy

WARMER = "plain, T = 0.6"
"""Plain generation with nothing changed but sampling."""


def baselines(
    policy: ALRR | ERSS, rate: Mapping[int, float], uncertain: float, seed: int
) -> dict[str, Policy]:
    """What a method has to beat, by name.

    rate: layer → share of the tokens that the method acts on; uncertain: the output entropy, nats, above which as large
    a share lies.
    """
    if isinstance(policy, ALRR):
        gates = {
            "random gate": RandomGate(dict(rate), seed),
            "entropy gate": EntropyGate(policy.layers, uncertain),
            "always on": AlwaysGate(policy.layers),
        }
        return {
            f"ALRR: {name}": GatedRecursion(gate, policy.max_passes, policy.damping)
            for name, gate in gates.items()
        }
    return {
        "ERSS: random bank vector": replace(policy, direction="random_bank"),
        "ERSS: length alone": replace(policy, direction="scaled"),
        "ERSS: rotation": replace(policy, direction="rotated"),
    }
