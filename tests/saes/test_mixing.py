"""How well problems are mixed in batches: what the plan of visits tells, and what batches that are drawn show."""

import numpy as np
import pandas as pd
import pytest

from normprobe.config import SaeSettings
from normprobe.saes.activations import Chunk, chunks, draw_tokens
from normprobe.saes.mixing import measure_mixing
from normprobe.saes.training import generator_for, shuffled, visits

N_PROBLEMS = 60


@pytest.fixture(scope="module")
def responses() -> pd.DataFrame:
    """Two responses of each problem, one of them long."""
    rng = np.random.default_rng(0)
    rows = [
        {"problem_id": f"p{i}", "split": "sae", "mode": mode, "token_ids": np.arange(rng.integers(low, high))}
        for i in range(N_PROBLEMS)
        for mode, low, high in (("think", 40, 90), ("no_think", 10, 30))
    ]
    return pd.DataFrame(rows)


def cut(responses: pd.DataFrame, n_chunks: int) -> list[Chunk]:
    rows = draw_tokens(responses, 10**6, generator_for(0))
    return chunks(responses, rows, -(-len(rows) // n_chunks), generator_for(1))


def plan(parts: list[Chunk], batch: int = 32, steps: int = 300) -> list[tuple[int, int]]:
    settings = SaeSettings(batch_size=batch, n_samples=batch * steps)
    return list(visits([len(part.rows) for part in parts], settings, generator_for(2)))


def problems_of(part: Chunk) -> np.ndarray:
    return np.repeat(part.responses["problem_id"], part.responses["token_ids"].map(len)).to_numpy()[part.rows]


def test_one_chunk_of_everything_is_perfect(responses):
    (whole,) = cut(responses, 1)
    found = measure_mixing([whole], plan([whole]))
    assert found.within == pytest.approx(1)
    assert found.neighbours == pytest.approx(1)


@pytest.mark.parametrize("n_chunks", [4, 12])
def test_random_chunks_have_at_most_their_number_and_the_next_batch_as_much(responses, n_chunks):
    parts = cut(responses, n_chunks)
    found = measure_mixing(parts, plan(parts))
    assert (n_chunks + 1) / 2 < found.within < 1.1 * n_chunks
    assert found.neighbours < found.within
    assert (
        measure_mixing(parts, [(i, 1) for i in range(n_chunks)]).neighbours < 1
    )  # each batch of another chunk


def test_chunks_in_order_of_problems_are_worse(responses):
    in_order, random = [], cut(responses, 12)
    for start in range(0, len(responses), 10):  # five problems each
        part = responses.iloc[start : start + 10].reset_index(drop=True)
        in_order.append(Chunk(part, np.arange(part["token_ids"].map(len).sum())))
    assert len(in_order) == 12
    worse, better = (measure_mixing(parts, plan(parts)).within for parts in (in_order, random))
    assert worse > 1.4 * better


def test_it_is_what_drawn_batches_show(responses):
    parts = cut(responses, 4)
    everything = np.concatenate([problems_of(part) for part in parts])
    share = pd.Series(everything).value_counts(normalize=True).to_numpy()
    same = []
    for number, steps in plan(parts, batch=32, steps=600):
        batches, problems = (
            shuffled(len(parts[number].rows), 32, generator_for(number)),
            problems_of(parts[number]),
        )
        for _ in range(steps):
            drawn = problems[next(batches).numpy()]
            counts = pd.Series(drawn).value_counts().to_numpy()
            same.append((counts * (counts - 1)).sum() / (32 * 31))
    expected = measure_mixing(parts, plan(parts, batch=32, steps=600)).within
    assert np.mean(same) / np.square(share).sum() == pytest.approx(expected, rel=0.1)
