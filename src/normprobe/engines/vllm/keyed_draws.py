"""The key of the uniform numbers that a request is sampled with, in `SamplingParams.extra_args`. Imports no vLLM.

To vLLM such a request is a greedy one; the worker leaves it the one token that its number stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from normprobe.engines.base import uniform_numbers
from normprobe.errors import NormprobeError

DRAWS = "normprobe_draws"
"""The key in `extra_args`."""
MOST_NUMBERS = 8


@dataclass(frozen=True)
class KeyedDraws:
    """A temperature above 0, and the key of the uniform numbers (see `normprobe.engines.base.Draws`)."""

    temperature: float
    key: tuple[int, ...]

    def uniform(self, n_steps: int) -> Float[np.ndarray, " step"]:
        """A number in [0, 1) for each token that the request may write."""
        return uniform_numbers(self.key, n_steps)

    def to_dict(self) -> dict[str, Any]:
        """As a request carries it."""
        return {"temperature": self.temperature, "key": list(self.key)}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> KeyedDraws | None:
        """The draws that a request names; None without any. Raises NormprobeError for what `to_dict` did not write."""
        given = (extra_args or {}).get(DRAWS)
        if given is None:
            return None
        try:
            temperature, key = float(given["temperature"]), tuple(given["key"])
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise NormprobeError(
                f'expected draws as {{"temperature": T, "key": whole numbers}}, got {type(given).__name__} '
                f"({error}); leave {DRAWS} to normprobe's own engine"
            ) from error
        whole = all(type(number) is int and 0 <= number < 2**63 for number in key)
        if not (0 < temperature < math.inf and 0 < len(key) <= MOST_NUMBERS and whole):
            raise NormprobeError(
                f"expected draws at a temperature above 0 by a key of whole numbers, {MOST_NUMBERS} at most, got "
                f"{temperature} and {len(key)} of them; correct them"
            )
        return cls(temperature, key)
