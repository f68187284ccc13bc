"""How many tokens a model can read: what its configuration has of positions and of their scaling."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel


def context_of(model: PreTrainedModel) -> int | None:
    """Tokens that a prompt and its response may have together; None where the model sets no limit.

    It is max_position_embeddings, or with YaRN (arXiv 2309.00071) factor × original_max_position_embeddings where that
    is more: some configurations count the scaled length (DeepSeek-V3), others leave it at that of the training (Qwen3
    with rope_scaling switched on). Other scalings count it already (llama3, longrope, linear).
    """
    config = model.config.get_text_config()
    written: int | None = getattr(config, "max_position_embeddings", None)
    return None if written is None else max(written, _yarn(config) or 0)


def _yarn(config: PreTrainedConfig) -> int | None:
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # One for all layers, or one for each type of layer: then the layers with the widest view count.
    of_layers = scaling.get("full_attention", scaling)
    if of_layers.get("rope_type", of_layers.get("type")) != "yarn":
        return None
    original, factor = of_layers.get("original_max_position_embeddings"), of_layers.get("factor")
    return int(original * factor) if original and factor else None
