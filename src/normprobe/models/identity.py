"""The identity of a measured model: fingerprints of weights, tokenizer and chat template."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.models.placement import weights_of

SAMPLED_VALUES = 2**16


@dataclass(frozen=True)
class ModelIdentity:
    """Written to manifests and layer profiles; equal fingerprints mean the same model, tokenizer and chat template.

    name: its hub id where that is known, else what the user called it. It tells nothing apart.
    weights: see `weights_fingerprint`. chat_template, tokenizer: SHA-256 of the template and of the sorted vocabulary.
    revision: the commit on the hub, None for other directories than those of the hub's cache.
    """

    name: str
    revision: str | None
    architecture: str
    weights: str
    n_layers: int
    d_model: int
    vocab: int
    dtype: str
    chat_template: str
    tokenizer: str

    def to_dict(self) -> dict[str, str | int | None]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def identify(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, revision: str | None
) -> ModelIdentity:
    """The identity of a loaded model; `name` is what the user called it."""
    config = model.config.get_text_config()
    return ModelIdentity(
        name=name,
        revision=revision,
        architecture=type(model).__name__,
        weights=weights_fingerprint(model),
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        vocab=config.vocab_size,
        dtype=str(model.dtype).removeprefix("torch."),
        chat_template=_sha256(str(tokenizer.chat_template)),
        tokenizer=_sha256(json.dumps(sorted(tokenizer.get_vocab().items()))),
    )


def weights_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over the matrices' names, shapes and up to 65,536 evenly spaced values each, rounded to bfloat16.

    So it takes seconds on the largest model, and is the same whatever dtype a checkpoint is opened in, and whether
    TransformerLens wraps it or not. It tells models apart; it does not protect from tampering.
    """
    digest = hashlib.sha256()
    # A TransformerBridge inserts this level into every name, and biases of zeros: hence matrices only.
    matrices = {
        name.replace("_original_component.", ""): (tuple(value.shape), _sample(value))
        for name, value in weights_of(model)
        if value.ndim > 1
    }
    for name, (shape, sample) in sorted(matrices.items()):
        digest.update(f"{name} {shape} ".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _sample(value: torch.Tensor) -> torch.Tensor:
    return value.flatten()[:: -(-value.numel() // SAMPLED_VALUES)].to("cpu", torch.bfloat16)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
