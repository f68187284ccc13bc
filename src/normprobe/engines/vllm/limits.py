"""What a policy may ask of an engine that requests share: sizes that others pay for, passes that others must join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.policies.combined import parts_of
from normprobe.policies.rows import Policy

MOST_PASSES = 100
"""Extra passes per token and layer; the paper has 10 at most."""
MOST_STATES = 64
"""States in a bank; the paper has 32."""


@dataclass(frozen=True)
class Limits:
    """Of one engine.

    length: tokens of the longest request. lockstep: experts wait in every pass for those of other data-parallel ranks.
    """

    length: int
    lockstep: bool

    @classmethod
    def of(cls, config: Any) -> Limits:
        """config: vLLM's."""
        model, parallel = config.model_config, config.parallel_config
        return cls(model.max_model_len, model.is_moe and parallel.data_parallel_size > 1)

    def check(self, policy: Policy) -> None:
        """Raises NormprobeError for a setting beyond its limit, and for extra passes that other ranks do not make."""
        most = {
            "max_passes": MOST_PASSES,
            "bank_size": MOST_STATES,
            "max_tokens": self.length,
            "streak": self.length,
            "cooldown": self.length,
        }
        for part in parts_of(policy):
            for name, limit in most.items():
                if (value := getattr(part, name, 0)) > limit:
                    raise NormprobeError(
                        f"expected {name} of at most {limit} in this engine, got {value}; lower it"
                    )
            if part.kind == "recursion" and self.lockstep:
                raise NormprobeError(
                    "expected no extra passes of a mixture of experts under data parallelism, whose ranks wait for "
                    "each other in every pass, got alrr; use tensor parallelism"
                )
