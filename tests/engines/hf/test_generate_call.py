"""Ways of decoding that a policy cannot follow: each is refused by its own name before the model runs."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, Qwen3ForCausalLM
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

from normprobe.engines.hf import intervene
from normprobe.errors import NormprobeError
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import FixedThreshold

POLICY = Suppression(FixedThreshold({1: 1e-3}))
IDS = torch.tensor([[5, 6, 7, 8, 5, 6, 7]])


def refused(model: Qwen3ForCausalLM, match: str, *args: Any, **how: Any) -> None:
    """generate() raises this line, and the model never ran."""
    passes = []
    counter = model.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(NormprobeError, match=match) as error, intervene(model, POLICY):
        model.generate(*(args or (IDS,)), max_new_tokens=3, **how)
    counter.remove()
    assert not passes
    assert "\n" not in str(error.value)


REFUSED: dict[str, dict[str, Any]] = {
    "num_beams=1": {"num_beams": 3},
    "num_beams=1 ": {"num_beams": 2, "do_sample": True},
    "num_beam_groups=1": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "force_words_ids=None": {"num_beams": 2, "force_words_ids": [[5]]},
    "prompt_lookup_num_tokens=None": {"prompt_lookup_num_tokens": 2},
    "assistant_early_exit=None": {"assistant_early_exit": 2},
    "guidance_scale=1": {"guidance_scale": 1.5},
    "penalty_alpha=0": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers=None": {"dola_layers": "high"},
    "custom_generate=None": {"custom_generate": "some/repository"},
    "custom_generate=None ": {"custom_generate": lambda *_, **__: None},
    "token_healing=False": {"token_healing": True},
    "use_cache=True": {"use_cache": False},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_policy_cannot_follow_is_refused_by_name(tiny_qwen3: Qwen3ForCausalLM, name: str) -> None:
    refused(tiny_qwen3, f"expected generate.. with {name.strip()} inside intervene, got ", **REFUSED[name])


def test_an_assistant_is_refused_on_both_sides(make_tiny_qwen3: Any) -> None:
    model, small = make_tiny_qwen3(), make_tiny_qwen3(seed=1, n_layers=2)
    refused(model, "assistant_model=None inside intervene, got Qwen3ForCausalLM", assistant_model=small)
    with pytest.raises(NormprobeError, match="is_assistant=False"), intervene(small, POLICY):
        model.generate(IDS, assistant_model=small, max_new_tokens=3)


def test_settings_are_found_wherever_they_stand(tiny_qwen3: Qwen3ForCausalLM) -> None:
    refused(tiny_qwen3, "num_beams=1 .* got 3", IDS, GenerationConfig(num_beams=3))
    guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, tiny_qwen3)
    refused(tiny_qwen3, "guidance_scale=1", logits_processor=LogitsProcessorList([guidance]))
    tiny_qwen3.generation_config.num_beams = 2
    refused(tiny_qwen3, "num_beams=1 .* got 2")
    with intervene(tiny_qwen3, POLICY):
        tiny_qwen3.generate(IDS, num_beams=1, guidance_scale=1.0, max_new_tokens=2)


def test_a_prompt_in_another_form_is_refused(tiny_qwen3: Qwen3ForCausalLM) -> None:
    refused(tiny_qwen3, "token ids as a tensor .row, token., got list", IDS.tolist())
    embeds = tiny_qwen3.get_input_embeddings()(IDS)
    refused(
        tiny_qwen3,
        "prefill_chunk_size=4, got inputs_embeds",
        None,
        inputs_embeds=embeds,
        prefill_chunk_size=4,
    )


def test_a_cache_that_the_prompt_does_not_continue_is_refused(tiny_qwen3: Qwen3ForCausalLM) -> None:
    cache = DynamicCache(config=tiny_qwen3.config)
    tiny_qwen3(IDS, past_key_values=cache)
    refused(tiny_qwen3, "7 are in the cache.*got 2 tokens and no mask", IDS[:, :2], past_key_values=cache)
    refused(tiny_qwen3, "7 are in the cache.*got 7 tokens", past_key_values=cache)
    mask = torch.ones(1, 8, dtype=torch.int64)
    two = {"attention_mask": mask, "past_key_values": cache}
    refused(tiny_qwen3, "got 2 tokens and a mask over 8", IDS[:, :2], **two)
    longer = torch.cat([IDS, IDS], dim=1).repeat(2, 1)
    refused(tiny_qwen3, "expected a cache of 2 rows.*got 1", longer, past_key_values=cache)
    sampled = {"do_sample": True, "num_return_sequences": 3, "past_key_values": cache}
    refused(tiny_qwen3, "expected a cache of 3 rows.*batch_repeat_interleave", longer[:1], **sampled)


def test_continuous_batching_is_refused(tiny_qwen3: Qwen3ForCausalLM) -> None:
    refused(tiny_qwen3, "continuous batching", cache_implementation="paged")
    with pytest.raises(NormprobeError, match="continuous batching"), intervene(tiny_qwen3, POLICY):
        tiny_qwen3.generate_batch([IDS[0].tolist()])
