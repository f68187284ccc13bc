"""Token injection on a model that does nothing but embed its tokens: features of one token are found, and no others."""

import math

import numpy as np
import pytest
import torch

from normprobe.feature_pages.activity import TracedTokens, read_activity
from normprobe.feature_pages.injection import LEAST_COUNT, Injection, choose_texts, inject, trigger_tokens
from normprobe.feature_pages.token_sums import explained
from normprobe.saes.dictionary import Dictionary, topk_sae

LAYER = 1
PLANTED, EVERYWHERE, NOWHERE = ";", "answer", "mother"
"""A token of every thought and of no answer, one of every answer, and one that seldom comes."""


@pytest.fixture
def embedding(opened):
    """The model with blocks that pass their input on."""
    with torch.no_grad():
        for block in opened.blocks:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return opened


@pytest.fixture
def detectors(embedding) -> Dictionary:
    """A dictionary in which each feature fires at one token alone."""
    ids = [embedding.tokenizer.convert_tokens_to_ids(token) for token in (PLANTED, EVERYWHERE, NOWHERE)]
    weight = embedding.model.get_input_embeddings().weight.detach()[ids]
    lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    atoms = weight / lengths
    sae = topk_sae(atoms, atoms, -0.9 * lengths[:, 0], torch.zeros(weight.shape[1]), len(ids), {})
    return Dictionary.of(sae)


def test_a_feature_of_a_token_is_token_driven_and_its_controls_do_nothing(embedding, detectors, responses):
    tokens = TracedTokens(responses, np.random.default_rng(0))
    features = [0, 1, 2]
    activity = read_activity(embedding, tokens, {LAYER: detectors}, {LAYER: features})[LAYER]
    texts = choose_texts(tokens, 8, np.random.default_rng(1))
    found = inject(embedding, tokens, texts, detectors, LAYER, features, activity, np.random.default_rng(2))
    silent = Injection(0.0, 1.0, "context-dependent", 0.0)
    trigger, control = found[0]
    assert (trigger.d, trigger.p, trigger.dependence) == (math.inf, 0.0, "token-driven")
    # One of four tokens of the answer fires now.
    at_it = activity.maxima[tokens.measured & (tokens.mode == 0), 0].max()
    assert trigger.shift == pytest.approx(at_it / 4, rel=1e-4)
    assert control == silent
    everywhere, _ = found[1]
    assert everywhere.dependence == "context-dependent"
    assert everywhere.d == pytest.approx(0, abs=1e-3)
    assert 2 not in found  # what never fires has no triggers
    r2 = explained(activity.identity["select"], activity.identity["measure"])
    assert (r2[:2] > 0.95).all()  # all of it but at tokens that the split select has not
    assert (explained(activity.shuffled["select"], activity.shuffled["measure"])[:2] < 0.05).all()


def test_triggers_are_usual_tokens_and_controls_come_as_often(embedding, dictionaries, responses):
    tokens = TracedTokens(responses, np.random.default_rng(0))
    features = list(range(24))
    select = read_activity(embedding, tokens, dictionaries, {1: features})[1].identity["select"]
    tried = 0
    for feature in features:
        triggers, controls = trigger_tokens(select, feature)
        assert not set(triggers) & set(controls)
        assert (select.n[[*triggers, *controls]] >= LEAST_COUNT).all()
        means = select.mean[triggers, feature]
        assert (means > 0).all()
        assert (np.diff(means) <= 0).all()
        tried += len(triggers)
    assert tried


def test_texts_are_answers_without_a_thought(responses):
    tokens = TracedTokens(responses, np.random.default_rng(0))
    texts = choose_texts(tokens, 1000, np.random.default_rng(0))
    chosen = responses.iloc[texts]
    assert set(chosen["mode"]) == {"no_think"}
    assert set(chosen["split"]) == {"measure"}
    assert len(chosen) == ((responses["mode"] == "no_think") & (responses["split"] == "measure")).sum()
    assert len(choose_texts(tokens, 3, np.random.default_rng(0))) == 3


def test_without_texts_nothing_is_tried(opened, dictionaries, responses):
    tokens = TracedTokens(responses, np.random.default_rng(0))
    activity = read_activity(opened, tokens, dictionaries, {1: [0]})[1]
    none = np.array([], dtype=np.int64)
    assert inject(opened, tokens, none, dictionaries[1], 1, [0], activity, np.random.default_rng(0)) == {}
