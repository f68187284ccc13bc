"""What training reads: the same steps wherever it goes on, and whoever draws them."""

from functools import partial
from itertools import chain

import pytest
import torch

from normprobe.training.reading_matter import drawn_ahead, steps
from normprobe.training.tiny_thinker.recipe import Recipe, pool

RECIPE = Recipe(n_steps=7, steps_per_pool=2, microbatches=2, microbatch_tokens=256, pretraining_share=0.4)
DRAW = partial(pool, RECIPE)


@pytest.mark.parametrize("first", range(7))
def test_a_training_that_goes_on_reads_what_it_would_have_read(first):
    whole = list(chain.from_iterable(map(DRAW, range(4))))[: RECIPE.n_steps]
    rest = list(steps(DRAW, first, RECIPE.n_steps, RECIPE.steps_per_pool, torch.device("cpu")))
    assert [number for number, _ in rest] == list(range(first, RECIPE.n_steps))
    assert [step for _, step in rest] == whole[first:]


def test_other_processes_draw_the_same_in_the_same_order_and_end():
    assert list(drawn_ahead(DRAW, range(1, 6), 2)) == [DRAW(index) for index in range(1, 6)]
    left = drawn_ahead(DRAW, range(1_000_000), 2)
    assert next(left) == DRAW(0)
    left.close()


def test_an_error_of_a_draw_is_raised_where_it_is_read():
    drawn = drawn_ahead(partial(pool, None), range(3), 1)
    with pytest.raises(AttributeError, match="seed"):
        next(drawn)
