"""Requests of lm-evaluation-harness: what they ask of generation, and what was written to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from normprobe.errors import NormprobeError

_SHAPING = ("top_p", "top_k", "min_p", "typical_p")
"""What changes sampling only."""


@dataclass(frozen=True)
class Written:
    """A response: the task and the number of its document, its prompt, its tokens, and the extra passes it took (of one
    layer for one token)."""

    document: tuple[str | None, int | None]
    prompt: list[int]
    tokens: list[int]
    passes: int


def generation_settings(given: Mapping[str, Any], limit: int) -> tuple[int, float, tuple[str, ...]]:
    """At most how many tokens, at which temperature (0: greedy), and the strings that end the answer.

    given: a task's `generation_kwargs`. limit: tokens where they name none.
    Raises NormprobeError for settings that no engine knows.
    """
    settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), limit))
    until, max_new_tokens = settings.pop("until"), settings.pop("max_gen_toks")
    sampled, temperature = settings.pop("do_sample"), float(settings.pop("temperature", 0.0))
    temperature = temperature if sampled else 0.0
    unknown = [
        name
        for name in settings
        if not (name == "num_beams" and settings[name] == 1) and not (name in _SHAPING and temperature == 0.0)
    ]
    if unknown:
        raise NormprobeError(
            "expected generation by until, max_gen_toks, do_sample and temperature, got "
            f"{', '.join(unknown)}; leave it out, or use --model hf for the plain model"
        )
    return max_new_tokens, temperature, tuple(until)
