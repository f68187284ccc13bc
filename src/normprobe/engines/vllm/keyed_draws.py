"""The uniform numbers that a request brings to be sampled with, in `SamplingParams.extra_args`. Imports no vLLM.

To vLLM such a request is a greedy one; the worker leaves it the one token that its number stands for.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from normprobe.errors import NormprobeError

DRAWS = "normprobe_draws"
"""The key in `extra_args`."""


@dataclass(frozen=True)
class KeyedDraws:
    """A temperature above 0, and a number in [0, 1) for each token that the request may write."""

    temperature: float
    uniform: Float[np.ndarray, " step"]

    def to_dict(self) -> dict[str, Any]:
        """As a request carries it: text, since messages between vLLM's processes hold no arrays here."""
        numbers = np.ascontiguousarray(self.uniform, dtype="<f8").tobytes()
        return {"temperature": self.temperature, "uniform": base64.b64encode(numbers).decode()}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> KeyedDraws | None:
        """The draws that a request brings; None without any. Raises NormprobeError for what `to_dict` did not write."""
        given = (extra_args or {}).get(DRAWS)
        if given is None:
            return None
        try:
            temperature = float(given["temperature"])
            uniform = np.frombuffer(base64.b64decode(given["uniform"], validate=True), "<f8")
        except (TypeError, ValueError, KeyError) as error:
            raise NormprobeError(
                f'expected draws as {{"temperature": T, "uniform": base64 of float64}}, got {type(given).__name__} '
                f"({error}); leave {DRAWS} to normprobe's own engine"
            ) from error
        within = ((uniform >= 0) & (uniform < 1)).all()
        if not (0 < temperature < math.inf and len(uniform) and within):
            raise NormprobeError(
                f"expected draws in [0, 1) at a temperature above 0, got {len(uniform)} at {temperature}; correct them"
            )
        return cls(temperature, uniform)
