"""Counterfactual importance: which sentences of a thought does its answer hang on?

Source: Thought Anchors (arXiv 2506.19143). From before every sentence, and from behind the last, the thought is written
anew n times. Of the draws from before a sentence, those whose next sentence has other words are *replaced*; all others
keep the sentence, as do the draws from behind it. Its importance is how far the final answers of these two groups lie
apart. The paper takes the KL divergence, which is infinite as soon as one group has an answer that the other lacks;
total variation is finite, between 0 and 1, and the most by which the probability of any set of answers changes. Of few
draws it is above 0 by chance: `chance` is what it would be on average if the groups were divided at random.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normprobe.config import FEWEST_DRAWS, ImportanceSettings
from normprobe.engines.base import Draws, Engine
from normprobe.errors import NormprobeError
from normprobe.experiments.answers import MODE, judged
from normprobe.experiments.samples import sample_key
from normprobe.experiments.sentences import first_sentence, sentence_spans
from normprobe.problems.final_answer import answer_key
from normprobe.problems.source import Scorer
from normprobe.runs.jobs import TABLE, JobRunner
from normprobe.runs.layout import FILES
from normprobe.stats.total_variation import chance_variation, total_variation


def fill_importance(
    folder: Path,
    engine: Engine,
    problems: pd.DataFrame,
    responses: pd.DataFrame,
    *,
    settings: ImportanceSettings,
    max_new_tokens: int,
    seed: int,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> None:
    """Write sentences.parquet and draws.parquet into `folder`, for the thoughts that `chosen_responses` takes.

    max_new_tokens: limit of a draw. Resumes thought by thought. Raises NormprobeError if no thought came to an answer.
    """
    chosen = chosen_responses(responses, settings.problems)
    if chosen.empty:
        raise NormprobeError(
            f"expected thoughts with an answer in the split measure in {MODE}, got none; see normprobe doctor"
        )
    gold = problems.set_index("problem_id")["answer"]
    thoughts: dict[str, dict[str, Any]] = {
        str(row["response_id"]): {str(name): value for name, value in row.items()}
        for row in chosen.to_dict("records")
    }
    spans = {
        name: list(
            sentence_spans(engine.chat, row["token_ids"].tolist(), row["thought_start"], row["thought_end"])
        )
        for name, row in thoughts.items()
    }
    jobs = {
        name: partial(
            _draw,
            engine,
            row,
            spans[name],
            gold[row["problem_id"]],
            settings=settings,
            max_new_tokens=max_new_tokens,
            seed=seed,
            scorer=scorer,
        )
        for name, row in thoughts.items()
    }
    sizes = {name: settings.draws * (len(spans[name]) + 1) for name in jobs}
    parts = folder / "parts"
    with JobRunner(
        parts, TABLE, label="importance", total=sum(sizes.values()), unit="draw", progress=progress
    ) as runner:
        draws = pd.concat(runner.run(jobs, size=sizes).values(), ignore_index=True)
    rows = [
        {
            "response_id": name,
            "problem_id": row["problem_id"],
            "sentence": number,
            "start": first,
            "end": after,
            "text": engine.chat.text(row["token_ids"][first:after].tolist()).strip(),
        }
        for name, row in thoughts.items()
        for number, (first, after) in enumerate(spans[name])
    ]
    FILES["importance_draws"].write(folder, draws)
    FILES["importance"].write(folder, with_importance(pd.DataFrame(rows), draws))
    shutil.rmtree(parts)


def chosen_responses(responses: pd.DataFrame, n_problems: int) -> pd.DataFrame:
    """The first responses in think of the split measure whose thought came to an answer, at most n."""
    fit = (responses["split"] == "measure") & (responses["mode"] == MODE) & ~responses["truncated"]
    written = (responses["thought_end"] > responses["thought_start"]) & (responses["answer_start"] >= 0)
    return responses[fit & written].drop_duplicates("problem_id").head(n_problems)


def with_importance(sentences: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    """The sentences with what their draws show: n_replaced, n_kept, total_variation, chance, right_replaced, right_kept
    (the last four missing for fewer than `FEWEST_DRAWS` draws of either group, the last two also without a judge)."""
    category, _ = pd.factorize(draws["answer"])
    right = draws["correct"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    place = draws.groupby(["response_id", "sentence"]).indices
    replaced = draws["replaced"].to_numpy(dtype=bool)
    found = []
    for response, number in zip(sentences["response_id"], sentences["sentence"], strict=True):
        here, behind = place[response, number], place[response, number + 1]
        groups = here[replaced[here]], np.concatenate([here[~replaced[here]], behind])
        row: dict[str, Any] = dict(zip(("n_replaced", "n_kept"), map(len, groups), strict=True))
        if min(map(len, groups)) >= FEWEST_DRAWS:
            counts = [np.bincount(category[group], minlength=category.max() + 1) for group in groups]
            held = np.flatnonzero(counts[0] + counts[1])
            row |= {"total_variation": total_variation(*(count[held] for count in counts))}
            row |= {"chance": chance_variation(*(count[held] for count in counts))}
            row |= dict(
                zip(("right_replaced", "right_kept"), (right[group].mean() for group in groups), strict=True)
            )
        found.append(row)
    measured = ("total_variation", "chance", "right_replaced", "right_kept")
    frame = pd.DataFrame(found, columns=["n_replaced", "n_kept", *measured]).astype(
        dict.fromkeys(measured, float)
    )
    return pd.concat([sentences, frame], axis=1)


def _draw(
    engine: Engine,
    response: dict[str, Any],
    spans: list[tuple[int, int]],
    gold: object,
    *,
    settings: ImportanceSettings,
    max_new_tokens: int,
    seed: int,
    scorer: Scorer | None,
) -> pd.DataFrame:
    """One thought's draws from before each sentence and from behind the last: a row each, as in draws.parquet."""
    chat, ids, n_prompt = engine.chat, response["token_ids"].tolist(), int(response["n_prompt"])
    starts, end = [first for first, _ in spans], int(response["thought_end"])
    begins = [*starts, end]
    places = [(number, draw) for number in range(len(begins)) for draw in range(settings.draws)]
    prompts = [ids[: begins[number]] for number, _ in places]
    limit = max_new_tokens if engine.context is None else min(max_new_tokens, engine.context - end)

    def key(name: str) -> tuple[int, int, int]:
        place, _, draw = name.rpartition("/")
        return sample_key(seed, int(draw), place)

    written = engine.generate(
        prompts,
        limit,
        names=[f"{response['response_id']}/{number}/{draw}" for number, draw in places],
        temperature=float(settings.temperature),
        draws=Draws(key),
        batch_size=settings.batch_size,
    ).tokens
    own = [first_sentence(chat, ids, start, end) for start in starts]
    answers, replaced = [], []
    for (number, _), prompt, tokens in zip(places, prompts, written, strict=True):
        whole = prompt + tokens
        found = chat.spans(whole, n_prompt)
        answers.append(chat.span_text(whole, found.answer))
        after = begins[number]
        replaced.append(
            number < len(own) and first_sentence(chat, whole, after, found.thought[1]) != own[number]
        )
    return pd.DataFrame(
        {
            "response_id": response["response_id"],
            "problem_id": response["problem_id"],
            "sentence": [number for number, _ in places],
            "draw": [draw for _, draw in places],
            "replaced": replaced,
            "answer": [answer_key(answer) for answer in answers],
            "correct": judged(answers, [gold] * len(answers), scorer),
            "n_tokens": [len(tokens) for tokens in written],
        }
    )
