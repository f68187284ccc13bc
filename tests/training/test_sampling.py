"""Writing from buffers of a fixed size: the tokens that Transformers' own generation writes."""

import pytest
import torch

from normprobe.problems.bundled import TESTBED
from normprobe.problems.testbed.problems import make_problems
from normprobe.training.sampling import respond, respond_in_buffers
from normprobe.training.tiny_thinker.accuracy import prompt
from normprobe.training.tiny_thinker.model_card import open_checkpoint


@pytest.fixture(scope="module")
def prompts():
    """tiny-thinker and prompts of several lengths, padded on the left."""
    model, tokenizer = open_checkpoint(TESTBED / "final", "cpu")
    texts = [prompt(tokenizer, problem, "think") for problem in make_problems(6, seed=3)]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    assert 0 < inputs["attention_mask"].sum() < inputs["attention_mask"].numel()
    return model, inputs["input_ids"], inputs["attention_mask"], [tokenizer.eos_token_id]


def test_buffers_give_what_a_growing_cache_gives(prompts):
    model, ids, mask, ends = prompts
    expected = respond(model, ids, mask, ends=ends, max_new_tokens=48, temperature=None)
    found = respond_in_buffers(model, ids, mask, ends, 48, None)[:, : expected.shape[1]]
    assert found.shape == expected.shape
    kept = torch.isin(expected, torch.tensor(ends)).cumsum(1) <= 1
    assert torch.equal(found[kept], expected[kept])


def test_a_response_that_ended_is_filled_with_its_end(prompts):
    model, ids, mask, _ = prompts
    free = respond_in_buffers(model, ids, mask, [], 24, None)
    end = int(free[0, 5])
    written = respond(model, ids, mask, ends=[end], max_new_tokens=24, temperature=None)
    for row, without in zip(written.tolist(), free.tolist(), strict=True):
        length = without.index(end) + 1 if end in without else len(without)
        assert row[:length] == without[: min(length, len(row))]
        assert set(row[length:]) <= {end}


def test_it_stops_soon_after_all_have_ended(prompts):
    model, ids, mask, _ = prompts
    everything = list(range(model.config.vocab_size))
    assert respond_in_buffers(model, ids, mask, everything, 48, None).shape[1] <= 17


def test_draws_follow_the_model(prompts):
    """The first token's shares among many draws, against its probabilities: a χ² that chance exceeds once in 10⁶."""
    model, ids, _, ends = prompts
    n = 2000
    few = ids[:1, -6:]
    logits = model(input_ids=few).logits[0, -1].detach()
    expected = (logits / 2).softmax(-1)
    torch.manual_seed(0)
    rows, mask = few.repeat(n, 1), torch.ones(n, few.shape[1], dtype=torch.long)
    drawn = respond_in_buffers(model, rows, mask, ends, 1, 2.0)[:, 0]
    often = expected * n >= 5
    counts = torch.bincount(drawn, minlength=len(expected)).float()
    chi2 = ((counts - n * expected)[often] ** 2 / (n * expected)[often]).sum()
    freedom = int(often.sum())
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5 + 25
