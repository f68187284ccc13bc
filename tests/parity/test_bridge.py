"""A TransformerLens bridge on the same checkpoint gives the same sites, and is refused where it changed the weights."""

from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from normprobe.errors import NormprobeError
from normprobe.models.open import open_model
from normprobe.models.sites import record_sites


@pytest.fixture
def bridge(tiny_qwen3_dir: Path) -> TransformerBridge:
    return TransformerBridge.boot_transformers(str(tiny_qwen3_dir), device="cpu")


@torch.no_grad()
def test_a_bridge_has_our_sites(bridge, tiny_qwen3_dir):
    """Bit for bit, with the bridge's eager attention: its own resid_post, and our hooks on either model."""
    plain, wrapped = open_model(tiny_qwen3_dir), open_model(bridge)
    plain.model.set_attn_implementation("eager")
    prompt = torch.tensor([plain.chat.prompt_ids("math a: 4 ; b: a +9 ; b ?", "think")])
    with record_sites(plain) as sites, record_sites(wrapped) as bridged:
        plain.model(prompt)
        wrapped.model(prompt)
        _, cache = bridge.run_with_cache(prompt)
        for layer, (ours, theirs) in enumerate(zip(sites.states, bridged.states, strict=True)):
            assert torch.equal(ours, theirs)
            assert torch.equal(ours, cache["resid_post", layer])


def test_a_bridge_is_the_same_model(bridge, tiny_qwen3_dir):
    plain, wrapped = open_model(tiny_qwen3_dir), open_model(bridge)
    assert wrapped.identity == plain.identity
    assert wrapped.chat.eos_ids == plain.chat.eos_ids
    assert wrapped.untrained(3).identity.weights == plain.untrained(3).identity.weights
    assert wrapped.chat.prompt_ids("math ?", "filler", 2) == plain.chat.prompt_ids("math ?", "filler", 2)


@torch.no_grad()
def test_the_logit_lens_of_a_bridge_is_its_model(bridge):
    wrapped = open_model(bridge)
    with record_sites(wrapped) as sites:
        logits = wrapped.model(torch.arange(10, 20)[None]).logits
        torch.testing.assert_close(wrapped.unembed(sites.states[-1]), logits)


def test_processed_weights_are_refused(bridge):
    bridge.enable_compatibility_mode()
    with pytest.raises(NormprobeError, match="folded or centred"):
        open_model(bridge)
