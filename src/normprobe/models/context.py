"""How many tokens a model can read: what its configuration has of positions and of their scaling."""

from __future__ import annotations

from transformers import PreTrainedModel

_CHANGING = ("longrope", "dynamic")


def context_of(model: PreTrainedModel) -> int | None:
    """Tokens that a prompt and its response may have together; None where the model sets no limit.

    It is max_position_embeddings, or with YaRN (arXiv 2309.00071) factor × original_max_position_embeddings where that
    is more: some configurations count the scaled length (DeepSeek-V3), others leave it at that of the training (Qwen3
    with rope_scaling switched on). Other scalings count it already (llama3, linear). With longrope (Phi-3, Phi-4-mini)
    and dynamic scaling it is the length before scaling: beyond it Transformers turns every token of a batch by angles
    that depend on the longest response, so that a state would depend on what it was read together with.
    """
    config = model.config.get_text_config()
    written: int | None = getattr(config, "max_position_embeddings", None)
    if written is None:
        return None
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # One for all layers, or one for each type of layer: then the layers with the widest view count.
    of_layers = scaling.get("full_attention", scaling)
    kind = of_layers.get("rope_type", of_layers.get("type"))
    original, factor = of_layers.get("original_max_position_embeddings"), of_layers.get("factor")
    if kind in _CHANGING:
        return min(written, original or written)
    return max(written, int(original * factor)) if kind == "yarn" and original and factor else written
