"""The usable context under every way of writing a scaling of positions."""

import pytest
from transformers import AutoModelForCausalLM, Qwen3Config

from normprobe.models.context import context_of

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

LONGROPE = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 128,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}


@pytest.mark.parametrize(
    "written, scaling, context",
    [
        (512, None, 512),
        (128, YARN, 512),  # Qwen3 with YaRN switched on: max_position_embeddings stays that of the training
        (160, YARN, 512),
        (512, YARN, 512),  # DeepSeek-V3: it counts the scaled length
        (128, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        (512, {"rope_type": "linear", "factor": 4.0}, 512),
        (
            512,
            {"rope_type": "dynamic", "factor": 4.0},
            512,
        ),  # here max_position_embeddings is the trained length
        (
            512,
            LONGROPE,
            128,
        ),  # Phi-4-mini: beyond 128 the longest response of a batch decides every token's angles
        (
            512,
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
            512,
        ),
    ],
)
def test_context(make_tiny_qwen3, written, scaling, context):
    model = make_tiny_qwen3(n_layers=1)
    settings = model.config.to_dict()
    settings.pop("rope_parameters", None)
    settings |= {"max_position_embeddings": written, "rope_scaling": scaling}
    scaled = AutoModelForCausalLM.from_config(Qwen3Config.from_dict(settings))
    assert context_of(scaled) == context
