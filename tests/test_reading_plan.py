"""Plans from a configuration alone: what fits, what is refused, and that less memory means smaller pieces."""

import json

import pytest
from transformers import CONFIG_MAPPING

from normprobe.config import ResponseSettings, Study
from normprobe.errors import NormprobeError
from normprobe.estimates import StudySizes
from normprobe.model_settings import ModelSettings
from normprobe.reading_plan import FEWEST_TOKENS, ReadingPlan, Shape

QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": False,
}
SHAPE = Shape.of(QWEN3_8B, itemsize=2)


def test_qwen3_8b_fits_80_gb_at_32k_tokens(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    study = Study(
        model=ModelSettings(str(tmp_path), dtype="bfloat16", device="cuda"),
        responses=ResponseSettings(max_new_tokens=32_768),
        memory_gb=30,
    )
    sizes = StudySizes.of(study, {"sae": 1, "select": 1, "measure": 1})
    assert sizes.shape is not None
    assert sizes.shape.bytes == pytest.approx(16.4e9, rel=0.01)  # 8.19 billion parameters
    assert sizes.reading is not None
    assert 33_280 * SHAPE.cache_per_token < sizes.reading.peak < 30e9
    total = sizes.gigabytes("traces")
    assert total is not None
    assert total < 80
    assert "responses of up to 33,280 tokens in chunks of" in sizes.reading_note
    assert "GB above 16.38 GB of weights per network" in sizes.reading_note


@pytest.mark.parametrize("longest", [10, 1000, 100_000])
def test_less_memory_means_smaller_pieces_until_none_fits(longest):
    free = ReadingPlan.of(SHAPE, longest)
    tokens = free.tokens
    for share in (1, 0.7, 0.5, 0.2):
        try:
            plan = ReadingPlan.of(SHAPE, longest, memory=int(share * free.peak))
        except NormprobeError:
            break
        assert plan.peak <= share * free.peak
        assert FEWEST_TOKENS <= plan.tokens <= tokens
        tokens = plan.tokens
    assert ReadingPlan.of(SHAPE, longest, memory=free.peak) == free


def test_what_cannot_fit_is_refused_with_the_memory_that_suffices():
    with pytest.raises(NormprobeError, match=r"tokens, got 1.00; give --memory \d+\.\d\d or") as refused:
        ReadingPlan.of(SHAPE, 32_768, memory=10**9)
    enough = float(str(refused.value).partition("--memory ")[2].split()[0])
    assert ReadingPlan.of(SHAPE, 32_768, memory=int(enough * 1e9)).peak <= enough * 1e9


def test_a_shape_is_read_from_what_configurations_call_things():
    moe = {**QWEN3_8B, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 100}
    assert Shape.of(moe, 2).intermediate == 200
    nested = {"text_config": {key: value for key, value in QWEN3_8B.items() if key != "head_dim"}}
    assert Shape.of(nested, 2) == SHAPE


@pytest.mark.parametrize(
    "kind", ["gpt2", "gptj", "bloom", "mpt", "gpt_neo", "opt", "falcon", "llama", "gemma3n_text"]
)
def test_every_architecture_tells_its_shape(kind):
    """Older ones have other names for their sizes; Gemma 3n has a width for each layer."""
    config = CONFIG_MAPPING[kind]()
    shape = Shape.of(config.to_dict(), 2)
    assert (shape.layers, shape.d, shape.heads) == (
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
    )
    assert ReadingPlan.of(shape, 1000).peak > 0


def test_a_configuration_without_sizes_is_refused_in_a_line():
    with pytest.raises(NormprobeError, match="tells hidden_size, num_attention_heads, got one of 'strange'"):
        Shape.of({"model_type": "strange", "num_hidden_layers": 2, "vocab_size": 9}, 2)
