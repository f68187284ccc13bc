"""Several sampled responses to each problem, and what every selector may know of them.

Samples are drawn with uniform numbers keyed by (seed, problem, sample); then the model reads each response once more,
which gives norms and next-token distributions of all its tokens at a fraction of the cost of writing it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from normprobe.engines.hf import generate
from normprobe.experiments.answers import MODE, answer_text, judged
from normprobe.experiments.confidence import confidences
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import OpenModel
from normprobe.models.sites import record_sites
from normprobe.policies.lrs import lrs_scores
from normprobe.policies.rows import Policy
from normprobe.tracing.decode import decode
from normprobe.tracing.responses import Scorer


def keyed_draws(problem_ids: Sequence[str], sample: int, seed: int, n_steps: int) -> np.ndarray:
    """Uniform draws in [0, 1) [problem, step], each row keyed by seed, problem and sample alone."""
    keys = ([seed, sample, zlib.crc32(name.encode())] for name in problem_ids)
    return np.stack([np.random.default_rng(key).random(n_steps) for key in keys])


def draw_sample(
    opened: OpenModel,
    problems: pd.DataFrame,
    profile: LayerProfile,
    sample: int,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int = 128,
    policy: Policy | None = None,
    scorer: Scorer | None = None,
) -> pd.DataFrame:
    """Sample number `sample` of every problem, in table order: problem_id, sample, answer (missing if there is none),
    correct, n_tokens, and the scores of `lrs_scores` (prefix `lrs_`, of the profile's chosen layers) and `confidences`.

    policy: what the responses are written under. Scores are those of the plain model reading them.
    """
    prompts = [opened.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
    ids = problems["problem_id"].tolist()
    draws = keyed_draws(ids, sample, seed, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    rows: list[dict[str, Any]] = [{} for _ in prompts]
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        batch = [prompts[i] for i in members]
        if policy is None:
            written = decode(opened, batch, max_new_tokens, temperature=temperature, draws=draws[members])
        else:
            written = generate(
                opened,
                policy,
                batch,
                max_new_tokens,
                names=[f"{ids[i]}/{sample}" for i in members],
                temperature=temperature,
                draws=draws[members],
                quiet=True,
            ).tokens
        scores = _read(opened, profile, batch, written)
        for i, tokens, score in zip(members, written, scores, strict=True):
            text = answer_text(opened, prompts[i], tokens)
            rows[i] = {
                "problem_id": ids[i],
                "sample": sample,
                "answer": text or None,
                "n_tokens": len(tokens),
            }
            rows[i] |= score
    table = pd.DataFrame(rows)
    right = judged(table["answer"].fillna("").tolist(), problems["answer"].tolist(), scorer)
    return table.assign(correct=right)


@torch.inference_mode()
def _read(
    opened: OpenModel, profile: LayerProfile, prompts: list[list[int]], written: list[list[int]]
) -> list[dict[str, float]]:
    """The scores of each response, from one pass over prompt and response, padded on the right."""
    whole = [prompt + tokens for prompt, tokens in zip(prompts, written, strict=True)]
    longest = max(map(len, whole))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in whole], device=opened.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in whole], device=opened.device)
    layers = profile.chosen_layers
    tau = torch.tensor([profile.tau[layer] for layer in layers], device=opened.device)
    with record_sites(opened) as sites:
        logits = opened.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        norm = torch.stack(
            [torch.linalg.vector_norm(sites.states[layer], dim=-1, dtype=torch.float32) for layer in layers],
            dim=1,
        )
    scores = []
    for row, (prompt, tokens) in enumerate(zip(prompts, written, strict=True)):
        # The state before a token yields it: the same rows that a policy may see while the response is written.
        rows = slice(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        said = torch.tensor(tokens, device=opened.device)
        scores.append(
            {f"lrs_{name}": float(score) for name, score in lrs_scores(norm[row][:, rows], tau).items()}
            | {name: float(score) for name, score in confidences(logits[row, rows], said).items()}
        )
    return scores
