"""A model spread over devices and disk is the same model: sites, logits, identity, responses, under a policy too."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble, open_model
from normprobe.models.placement import device_of, is_spread, spread
from normprobe.models.sites import record_sites
from normprobe.policies.spec import build
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.tracing.trace import replay

IDS = torch.arange(10, 40).reshape(2, 15)
# The embedding and two blocks in memory; two blocks, the final norm and an unembedding of its own on the disk.
SPLIT = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "cpu",
    "model.layers.3": "disk",
    "model.norm": "disk",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture(params=["tied", "untied"])
def folder(request, tiny_qwen3_dir, make_tiny_qwen3):
    """A checkpoint whose unembedding is the embedding, or is not."""
    if request.param == "untied":
        model = make_tiny_qwen3()
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
        model.save_pretrained(tiny_qwen3_dir)
    return tiny_qwen3_dir


@pytest.fixture
def whole(folder) -> OpenModel:
    return open_model(folder)


@pytest.fixture
def split(folder, whole, tmp_path) -> OpenModel:
    devices = SPLIT | ({"lm_head": "cpu"} if whole.model.config.tie_word_embeddings else {})
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map=devices, offload_folder=str(tmp_path / "offload")
    )
    assert is_spread(model)
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    assert model.lm_head.weight.is_meta is not whole.model.config.tie_word_embeddings
    return assemble(model, build_tokenizer(), "split")


@torch.no_grad()
def seen(opened: OpenModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with record_sites(opened) as sites:
        logits = opened.model(IDS.to(opened.device)).logits
        states = torch.stack(sites.states)
    return states, logits, opened.unembed(states[1])


def test_sites_logits_and_the_logit_lens_are_the_same(whole, split):
    for ours, theirs in zip(seen(split), seen(whole), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("memory", [None, 1_000_000])
def test_its_traces_are_the_same(whole, split, memory):
    responses = pd.DataFrame(
        {"split": ["measure"] * 3, "token_ids": [np.arange(5, 5 + n) for n in (40, 9, 23)]}
    )
    ours, theirs = (replay(opened, responses, memory=memory, progress=False) for opened in (split, whole))
    assert ours.keys() == theirs.keys()
    for name, signal in ours.items():
        np.testing.assert_array_equal(signal, theirs[name], err_msg=name)


def test_it_is_the_same_model(whole, split):
    assert split.identity.weights == whole.identity.weights
    assert split.device == device_of(split.model.get_input_embeddings()) == torch.device("cpu")
    assert split.untrained(3).identity.weights == whole.untrained(3).identity.weights


@pytest.mark.parametrize("policy", [None, "probe", "alrr"])
def test_it_writes_the_same(whole, split, policy):
    prompts = [whole.chat.prompt_ids("what is 2 + 3 ?", "think"), whole.chat.prompt_ids("b ?", "no_think")]
    spec = {"policy": policy, "layers": [1, 2], "tau": {"1": 0.1, "2": 0.1}}
    results = [
        HfEngine(opened).generate(
            prompts, 8, policy=None if policy is None else build(spec, None), quiet=True
        )
        for opened in (whole, split)
    ]
    assert results[0].tokens == results[1].tokens


def test_auto_opens_what_fits_in_one_place_too(folder, whole):
    opened = open_model(folder, device="auto")
    assert opened.identity.weights == whole.identity.weights
    assert opened.untrained(1).identity.weights == whole.untrained(1).identity.weights


def test_a_model_in_memory_is_spread(tiny_qwen3: Qwen3ForCausalLM):
    before = copy.deepcopy(tiny_qwen3)(IDS).logits
    assert torch.equal(spread(tiny_qwen3)(IDS).logits, before)


def test_an_unknown_place_is_told(tiny_qwen3_dir):
    with pytest.raises(NormprobeError, match="or auto, got 'everywhere'"):
        open_model(tiny_qwen3_dir, device="everywhere")
