"""Answer problems under a policy, and count what it cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from normprobe.engines.base import Draws, Engine, Events
from normprobe.policies.policy import Policy
from normprobe.problems.source import Scorer

MODE = "think"


def answer(
    engine: Engine,
    policy: Policy,
    problems: pd.DataFrame,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    draws: Draws | None = None,
    batch_size: int = 128,
    scorer: Scorer | None = None,
) -> tuple[pd.DataFrame, Events]:
    """Answer every problem in mode think under a policy: one row each, in table order, and what the policy did.

    Columns: problem_id, mode, answer (empty if the thought never closed), correct (missing without a scorer or a gold
    answer), n_tokens (generated), n_triggered (states the policy acted on: tokens × layers), n_passes (extra passes of
    one layer for one token), delta_norm (mean ‖Δh‖ over the triggered states; NaN if none). A policy's random draws
    are keyed by problem_id. A policy that never acts is a result here and raises no warning.
    """
    prompts = [engine.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
    generated = engine.generate(
        prompts,
        max_new_tokens,
        names=problems["problem_id"].tolist(),
        policy=policy,
        temperature=temperature,
        draws=draws,
        batch_size=batch_size,
        record=True,
        quiet=True,
    )
    events, n = generated.events, len(problems)
    assert events is not None
    answers = [
        engine.chat.answer_text(prompt + tokens, len(prompt))
        for prompt, tokens in zip(prompts, generated.tokens, strict=True)
    ]
    request = events.request.numpy()
    count = np.bincount(request, minlength=n)
    total = np.bincount(request, weights=events.delta.double().numpy(), minlength=n)
    table = pd.DataFrame(
        {
            "problem_id": problems["problem_id"],
            "mode": MODE,
            "answer": answers,
            "correct": judged(answers, problems["answer"].tolist(), scorer),
            "n_tokens": [len(tokens) for tokens in generated.tokens],
            "n_triggered": count,
            "n_passes": np.bincount(request, weights=events.passes.numpy(), minlength=n).astype(int),
            "delta_norm": np.divide(total, count, out=np.full(n, np.nan), where=count > 0),
        }
    )
    return table, events


def judged(answers: Sequence[str], gold: Sequence[object], scorer: Scorer | None) -> pd.Series:
    """Right or wrong, as a nullable column: missing without a scorer or a gold answer."""
    return pd.Series(
        [
            None if scorer is None or pd.isna(right) else scorer(given, str(right))  # type: ignore[call-overload]
            for given, right in zip(answers, gold, strict=True)
        ],
        dtype="boolean",
    )
