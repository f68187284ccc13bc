"""Each supported architecture, tiny and random: sites found, proved, and equal to what Transformers reports."""

import pytest
import torch
from parity_models import ARCHITECTURES, VARIED, build

from normprobe.models.model import OpenModel
from normprobe.models.open import assemble, open_model
from normprobe.models.sites import record_sites
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import VOCABULARY


@pytest.fixture(params=ARCHITECTURES | VARIED)
def opened(request: pytest.FixtureRequest) -> OpenModel:
    return assemble(build(request.param), build_tokenizer(), request.param)


@torch.no_grad()
def test_sites_equal_hidden_states_and_end_in_the_logits(opened):
    ids = torch.tensor([opened.chat.prompt_ids("math a: 4 ; b: a +9 ; b ?", "think")])
    with record_sites(opened) as sites:
        output = opened.model(ids, output_hidden_states=True)
        assert len(sites.states) == 3
        assert all(
            torch.equal(*pair) for pair in zip(sites.states[:-1], output.hidden_states[1:-1], strict=True)
        )
        assert not torch.equal(sites.states[-1], output.hidden_states[-1])
        torch.testing.assert_close(opened.anatomy.final_norm(sites.states[-1]), output.hidden_states[-1])
        torch.testing.assert_close(opened.unembed(sites.states[-1]), output.logits)
        assert opened.unembed(sites.states[0][0, 3]).shape == (len(VOCABULARY),)


def test_a_saved_model_is_recognised(opened, tmp_path):
    opened.model.save_pretrained(tmp_path)
    opened.tokenizer.save_pretrained(tmp_path)
    again = open_model(tmp_path, offline=True)
    assert again.identity.weights == opened.identity.weights
    assert again.identity.tokenizer == opened.identity.tokenizer


def test_the_untrained_twin_passes_the_self_check_and_is_reproducible(opened):
    twin = opened.untrained(seed=0)
    assert twin.identity.weights == opened.identity.weights  # these were drawn so themselves
    assert assemble(twin.model, twin.tokenizer, "twin").identity.weights == twin.identity.weights


@torch.no_grad()
def test_the_softcap_is_part_of_the_lens():
    model = build("gemma2")
    opened = assemble(model, build_tokenizer(), "gemma2")
    lens = opened.unembed(1e3 * torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    assert lens.abs().max() <= 2.0
    assert assemble(build("llama"), build_tokenizer(), "llama").anatomy.softcap is None
