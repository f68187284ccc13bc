"""Several sampled responses to each problem, and their scores, among which selectors choose.

Samples are drawn with uniform numbers keyed by (seed, problem, sample). Then the model reads each response once more:
norms, states and next-token distributions of all tokens come at a fraction of the cost of writing it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from normprobe.engines.base import Draws, Engine, batches_by_length
from normprobe.experiments.answers import MODE, judged
from normprobe.experiments.confidence import TokenConfidence, confidences, group_confidences
from normprobe.experiments.controls.deep_thinking import deep_thinking, settles_late
from normprobe.experiments.controls.latent_trajectory import latent_trajectory
from normprobe.experiments.controls.online_deepconf import GROUPS
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.sites import record_sites
from normprobe.policies.lrs import lrs_scores
from normprobe.policies.policy import Policy
from normprobe.problems.source import Scorer
from normprobe.tracing.stream import pad

BATCH = 128
"""Responses written, and at most read, at once."""
NUMBERS = 2**28
"""Numbers in the states of all layers that are held at once: 1 GiB. A response that has more is read alone."""
LOGITS = 2**25
"""Logits that are read at once; a few arrays of this size are held, 128 MiB each."""


def sample_key(seed: int, sample: int, problem_id: str) -> tuple[int, int, int]:
    """What seeds the uniform numbers of a problem's sample."""
    return seed, sample, zlib.crc32(problem_id.encode())


def draw_sample(
    engine: Engine,
    opened: OpenModel,
    problems: pd.DataFrame,
    profile: LayerProfile,
    sample: int,
    *,
    max_new_tokens: int,
    seed: int,
    policy: Policy | None = None,
    scorer: Scorer | None = None,
) -> pd.DataFrame:
    """Sample number `sample` of every problem, in table order, at temperature 1: problem_id, sample, answer (missing if
    there is none), n_tokens, the scores of `lrs_scores` (prefix `lrs_`, of the profile's chosen layers),
    `confidences`, `deep_thinking` and `latent_trajectory` (of the thought), `group_confidences` as a list, correct.

    engine: writes the responses, under `policy` if given. opened: the plain model, which reads them for the scores.
    """
    prompts = [engine.chat.prompt_ids(str(question), MODE) for question in problems["question"]]
    written = engine.generate(
        prompts,
        max_new_tokens,
        names=[f"{problem_id}/{sample}" for problem_id in problems["problem_id"]],
        policy=policy,
        temperature=1.0,
        draws=Draws(lambda name: sample_key(seed, sample, name.rpartition("/")[0])),
        batch_size=BATCH,
        quiet=True,
    ).tokens
    scores: list[dict[str, Any]] = [{} for _ in prompts]
    for members in _readable(opened, prompts, written):
        of_batch = _read(opened, profile, [prompts[i] for i in members], [written[i] for i in members])
        for i, score in zip(members, of_batch, strict=True):
            scores[i] = score
    answers = [
        engine.chat.answer_text(prompt + tokens, len(prompt))
        for prompt, tokens in zip(prompts, written, strict=True)
    ]
    facts = {
        "problem_id": problems["problem_id"].tolist(),
        "sample": sample,
        "answer": [text or None for text in answers],
        "n_tokens": [len(tokens) for tokens in written],
    }
    right = judged(answers, problems["answer"].tolist(), scorer)
    return pd.concat([pd.DataFrame(facts), pd.DataFrame(scores)], axis=1).assign(correct=right)


def _readable(
    opened: OpenModel, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    """The numbers of the responses that are read in one pass."""
    per_token = opened.identity.n_layers * opened.identity.d_model
    for members in batches_by_length(prompts, BATCH):
        longest = max(len(prompts[i]) + len(written[i]) for i in members)
        n = max(1, NUMBERS // (longest * per_token))
        yield from (members[first : first + n] for first in range(0, len(members), n))


@torch.inference_mode()
def _read(
    opened: OpenModel, profile: LayerProfile, prompts: list[list[int]], written: list[list[int]]
) -> list[dict[str, Any]]:
    """The scores of each response, from one pass over prompt and response, padded on the right.

    Logits are read `LOGITS` numbers at a time: a batch's would be many gigabytes over a large vocabulary.
    """
    whole = [prompt + tokens for prompt, tokens in zip(prompts, written, strict=True)]
    ids, mask = (torch.from_numpy(part).to(opened.device) for part in pad(whole))
    layers = profile.chosen_layers
    tau = torch.tensor([profile.tau[layer] for layer in layers], device=opened.device)
    scores: list[dict[str, Any]] = []
    with record_sites(opened) as sites:
        opened.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        states = sites.states
        for row, (prompt, tokens) in enumerate(zip(prompts, written, strict=True)):
            # The state before a token yields it: the same rows that a policy may see while the response is written.
            rows = slice(len(prompt) - 1, len(prompt) + len(tokens) - 1)
            before = [of_layer[row, rows] for of_layer in states]
            chosen = torch.tensor(tokens, device=opened.device)
            told, late = _predictions(opened, before, chosen)
            norm = torch.stack(
                [torch.linalg.vector_norm(before[layer], dim=-1, dtype=torch.float32) for layer in layers]
            )
            thought = slice(*opened.chat.spans(whole[row], len(prompt)).thought)
            scores.append(
                {f"lrs_{name}": float(score) for name, score in lrs_scores(norm, tau).items()}
                | confidences(told)
                | deep_thinking(late)
                | latent_trajectory(torch.stack([of_layer[row, thought] for of_layer in states]))
                | {GROUPS: group_confidences(told).tolist()}
            )
    return scores


def _predictions(
    opened: OpenModel, before: list[Float[torch.Tensor, "token d"]], chosen: Int[torch.Tensor, " token"]
) -> tuple[TokenConfidence, Bool[torch.Tensor, " token"]]:
    """What the distributions of a response tell of its tokens, and which of these settle late."""
    rows = max(1, LOGITS // opened.identity.vocab)
    told, late = [], []
    for *states, tokens in zip(*(of_layer.split(rows) for of_layer in (*before, chosen)), strict=True):
        own = opened.unembed(states[-1])
        told.append(TokenConfidence.of(own, tokens))
        late.append(settles_late(opened.unembed, states, own))
    return TokenConfidence.joined(told), torch.cat(late)
