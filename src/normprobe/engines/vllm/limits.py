"""The limits of what a policy may ask of an engine that requests share: memory, and passes that all take part in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from normprobe.errors import NormprobeError
from normprobe.policies.policy import Policy

MOST_PASSES = 256
"""Extra passes per token, over all layers; the paper has 10 at most in each."""
MOST_STATES = 64
"""States in a bank; the paper has 32."""
MOST_BYTES = 2**30
"""Memory of one request's settings, which are kept for as many requests as the engine serves at a time."""


@dataclass(frozen=True)
class Limits:
    """The sizes of an engine on which limits depend.

    length: tokens of the longest request. lockstep: a mixture of experts under data parallelism, whose ranks wait for
    each other in every pass. n_slots: requests at a time. state_bytes: of one state.
    """

    length: int
    lockstep: bool
    n_slots: int
    state_bytes: int

    @classmethod
    def of(cls, config: Any) -> Limits:
        """The limits of an engine with this configuration of vLLM's."""
        model, parallel = config.model_config, config.parallel_config
        return cls(
            model.max_model_len,
            model.is_moe and parallel.data_parallel_size > 1,
            config.scheduler_config.max_num_seqs,
            model.get_hidden_size() * model.dtype.itemsize,
        )

    def check(self, policy: Policy) -> None:
        """Check a policy's settings.

        Raises NormprobeError for a setting beyond its limit, and for extra passes that other ranks do not make.
        """
        most = {"tokens": self.length, "states": MOST_STATES}
        for part in policy.parts:
            passes = part.cost(self.state_bytes).extra_passes
            if passes > MOST_PASSES:
                raise NormprobeError(
                    f"expected at most {MOST_PASSES} extra passes of a token in this engine (max_passes times layers), "
                    f"got {passes}; lower max_passes"
                )
            if passes and self.lockstep:
                raise NormprobeError(
                    "expected no extra passes of a mixture of experts under data parallelism, whose ranks wait for "
                    "each other in every pass, got alrr; use tensor parallelism"
                )
            for name, unit in part.counts.items():
                if (value := getattr(part, name)) > most[unit]:
                    raise NormprobeError(
                        f"expected {name} of at most {most[unit]} in this engine, got {value}; lower it"
                    )

    def check_memory(self, policy: Policy) -> None:
        """Check the memory of a request's policy. Raises NormprobeError for histories of more than `MOST_BYTES`."""
        needed = policy.cost(self.state_bytes).bytes_per_slot * self.n_slots
        if needed > MOST_BYTES:
            raise NormprobeError(
                f"expected a policy whose histories take {MOST_BYTES >> 20} MiB at most in this engine, got "
                f"{needed >> 20}; name fewer layers, or lower max_tokens or bank_size"
            )
