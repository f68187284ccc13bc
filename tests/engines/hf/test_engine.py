"""The Hugging Face engine keeps what `engines/base.py` promises: requests are independent, draws keyed by name."""

import pytest
import torch

from normprobe.engines.base import Draws, Engine, batches_by_length
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.models.initialise import initialise
from normprobe.models.open import assemble
from normprobe.policies.lrs import lrs_scores
from normprobe.policies.probe import Probe
from normprobe.policies.spec import build
from normprobe.policies.threshold import FixedThreshold
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import VOCABULARY

NEW_TOKENS = 16
LAYERS = (1, 2)


@pytest.fixture
def engine(make_tiny_qwen3) -> HfEngine:
    """Weights so wide that it says many different tokens; every eighth token ends a response."""
    model = make_tiny_qwen3()
    model.config.initializer_range = 0.2
    initialise(model, torch.Generator().manual_seed(0))
    model.generation_config.eos_token_id = list(range(7, len(VOCABULARY), 8))
    return HfEngine(assemble(model, build_tokenizer(), "random", check=False))


@pytest.fixture
def prompts(engine: HfEngine) -> list[list[int]]:
    return [engine.chat.prompt_ids(problem.question, "think") for problem in make_problems(7, 0)]


draws = Draws(lambda name: [int(name)])


def test_it_is_an_engine(engine: HfEngine) -> None:
    assert isinstance(engine, Engine)
    assert engine.context == 512


def test_batches_are_by_length_then_in_order() -> None:
    prompts = [[0] * n for n in (3, 1, 2, 1, 3)]
    assert list(batches_by_length(prompts, 2)) == [[1, 3], [2, 0], [4]]
    assert list(batches_by_length([], 2)) == []


def test_finish_tells_an_end_token_from_the_limit(engine: HfEngine, prompts: list[list[int]]) -> None:
    result = engine.generate(prompts, NEW_TOKENS)
    assert set(result.finish) == {"stop", "length"}
    for tokens, finish in zip(result.tokens, result.finish, strict=True):
        assert (tokens[-1] in engine.chat.eos_ids) == (finish == "stop")
        assert finish == "stop" or len(tokens) == NEW_TOKENS
    assert result.events is None
    assert result.probes == [None] * len(prompts)


def test_a_sampled_response_depends_on_prompt_and_name_alone(
    engine: HfEngine, prompts: list[list[int]]
) -> None:
    names = [str(i) for i in range(len(prompts))]
    how = {"temperature": 1.5, "draws": draws}
    whole = engine.generate(prompts, NEW_TOKENS, names=names, **how).tokens
    backwards = engine.generate(prompts[::-1], NEW_TOKENS, names=names[::-1], batch_size=2, **how).tokens
    assert backwards[::-1] == whole
    assert engine.generate(prompts[:1], NEW_TOKENS, names=["99"], **how).tokens != whole[:1]


def test_requests_under_different_policies_get_what_they_get_alone(
    engine: HfEngine, prompts: list[list[int]]
) -> None:
    tau = {str(layer): 0.1 for layer in LAYERS}
    alrr = build({"policy": "alrr", "tau": tau, "blow_up": 1e9, "growth": -1.0}, None)
    suppress = build({"policy": "suppress", "tau": tau}, None)
    policies = [(None, alrr, suppress)[i % 3] for i in range(len(prompts))]
    mixed = engine.generate(prompts, NEW_TOKENS, policy=policies, record=True)
    assert mixed.events is not None
    for i, (prompt, policy) in enumerate(zip(prompts, policies, strict=True)):
        alone = engine.generate([prompt], NEW_TOKENS, names=[str(i)], policy=policy, record=True)
        assert alone.events is not None
        assert mixed.tokens[i] == alone.tokens[0]
        mine = mixed.events.request == i
        assert mixed.events.step[mine].tolist() == alone.events.step.tolist()
        assert mixed.events.passes[mine].tolist() == alone.events.passes.tolist()
    assert mixed.events.request.tolist() == sorted(mixed.events.request.tolist())
    assert mixed.tokens != engine.generate(prompts, NEW_TOKENS).tokens
    with pytest.raises(NormprobeError, match="a policy for each of 7 prompts, got 2"):
        engine.generate(prompts, NEW_TOKENS, policy=[None, alrr])


def test_a_probe_measures_the_norms_of_the_plain_response(engine: HfEngine, prompts: list[list[int]]) -> None:
    tau = 3.0
    probe = Probe(FixedThreshold(dict.fromkeys(LAYERS, tau)), max_tokens=NEW_TOKENS)
    result = engine.generate(prompts, NEW_TOKENS, policy=probe, batch_size=3, quiet=True)
    assert result.tokens == engine.generate(prompts, NEW_TOKENS).tokens
    for prompt, tokens, measured in zip(prompts, result.tokens, result.probes, strict=True):
        assert measured is not None
        with torch.no_grad():
            output = engine.opened.model(torch.tensor([prompt + tokens]), output_hidden_states=True)
        rows = slice(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        norm = torch.stack([output.hidden_states[layer + 1][0, rows].norm(dim=-1) for layer in LAYERS])
        for i, layer in enumerate(LAYERS):
            assert measured["layers"][str(layer)]["norm"] == pytest.approx(norm[i].tolist(), rel=1e-4)
        expected = lrs_scores(norm, torch.full((len(LAYERS),), tau))
        assert measured["scores"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert measured["n_tokens"] == len(tokens)


def test_bad_requests_are_refused_before_any_token(engine: HfEngine, prompts: list[list[int]]) -> None:
    with pytest.raises(NormprobeError, match=r"expected draws to sample with at temperature 1\.0"):
        engine.generate(prompts, NEW_TOKENS, temperature=1.0)
    with pytest.raises(NormprobeError, match=r"within the model's 512 tokens, got \d+ \+ 500 for \w+"):
        engine.generate(prompts, 500)
