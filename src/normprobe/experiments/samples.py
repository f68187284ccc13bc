"""Several sampled responses to each problem, and their scores, among which selectors choose.

Samples are drawn with uniform numbers keyed by (seed, problem, sample). Then the model reads each response once more:
norms and next-token distributions of all tokens come at a fraction of the cost of writing it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from normprobe.engines.base import Engine, batches_by_length
from normprobe.experiments.answers import MODE, judged
from normprobe.experiments.confidence import confidences
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.sites import record_sites
from normprobe.policies.lrs import lrs_scores
from normprobe.policies.policy import Policy
from normprobe.problems.source import Scorer


def sample_draws(seed: int, sample: int, problem_id: str, n_steps: int) -> Float[np.ndarray, " step"]:
    """Uniform numbers in [0, 1) keyed by seed, problem and sample alone."""
    return np.random.default_rng([seed, sample, zlib.crc32(problem_id.encode())]).random(n_steps)


def draw_sample(
    engine: Engine,
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

    engine: writes the responses, under `policy` if given. opened: the plain model, which reads them for the scores.
    """
    prompts = [engine.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
    ids = problems["problem_id"].tolist()
    rows: list[dict[str, Any]] = [{} for _ in prompts]
    for members in batches_by_length(prompts, batch_size):
        batch = [prompts[i] for i in members]
        written = engine.generate(
            batch,
            max_new_tokens,
            names=[f"{ids[i]}/{sample}" for i in members],
            policy=policy,
            temperature=temperature,
            draws=lambda name, n_steps: sample_draws(seed, sample, name.rpartition("/")[0], n_steps),
            batch_size=batch_size,
            quiet=True,
        ).tokens
        scores = _read(opened, profile, batch, written)
        for i, tokens, score in zip(members, written, scores, strict=True):
            text = engine.chat.answer_text(prompts[i] + tokens, len(prompts[i]))
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
        ids_of_response = torch.tensor(tokens, device=opened.device)
        scores.append(
            {f"lrs_{name}": float(score) for name, score in lrs_scores(norm[row][:, rows], tau).items()}
            | {name: float(score) for name, score in confidences(logits[row, rows], ids_of_response).items()}
        )
    return scores
