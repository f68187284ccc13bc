"""Find the decoder blocks, the final norm and the unembedding of a model.

There is no table of architectures: the three are found by shape, and `selfcheck` proves the finding on the model.
Tested on Qwen2, Qwen3, Llama, Mistral, Gemma 2 and 3, Phi-3, SmolLM3, and on the experts of Mixtral, Qwen3-MoE and
gpt-oss; any other decoder of attention layers that passes the proof is as good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel

from normprobe.errors import NormprobeError
from normprobe.models.placement import device_of


@dataclass(frozen=True)
class Anatomy:
    """The parts of a decoder that a measurement touches.

    blocks: one per layer; what block l returns (of a tuple, the first) is the site `resid_post[l]`, [batch, token, d].
    softcap: logits are softcap · tanh(logits / softcap) where it is given (Gemma 2, arXiv 2408.00118, section 2).
    scale: by which the unembedding's output is multiplied (Cohere's logit_scale, 1 / Granite's logits_scaling).
    """

    blocks: tuple[nn.Module, ...]
    final_norm: nn.Module
    unembedding: nn.Module
    softcap: float | None
    scale: float = 1.0

    @torch.no_grad()
    def unembed(self, hidden: Float[torch.Tensor, "*rows d"]) -> Float[torch.Tensor, "*rows vocab"]:
        """Logits, float32, as if `hidden` were the last site: the logit lens (nostalgebraist, 2020)."""
        return self._capped(self.unembedding(self.normed(hidden))).to(hidden.device)

    @property
    def vocabulary(self) -> int:
        """Entries of the unembedding: logits of one site."""
        return int(getattr(self.unembedding, "out_features", None) or self.unembedding.weight.shape[0])  # type: ignore[arg-type]

    @torch.no_grad()
    def normed(self, hidden: Float[torch.Tensor, "*rows d"]) -> Float[torch.Tensor, "*rows d"]:
        """Sites after the final norm: what the unembedding reads, in its dtype and where its inputs have to be."""
        dtype = next(self.unembedding.parameters()).dtype
        normed = self.final_norm(hidden.to(device_of(self.final_norm), dtype))
        return normed.to(device_of(self.unembedding))

    @torch.no_grad()
    def logits(
        self, normed: Float[torch.Tensor, "*rows d"], entries: slice
    ) -> Float[torch.Tensor, "*rows entries"]:
        """`unembed` for some entries of the vocabulary, from normed sites, without the others' arithmetic."""
        unembedding = self.unembedding
        if (
            type(unembedding) is not nn.Linear or unembedding.weight.is_meta
        ):  # quantized, adapted or offloaded
            return self._capped(unembedding(normed)[..., entries])
        bias = None if unembedding.bias is None else unembedding.bias[entries]
        return self._capped(nn.functional.linear(normed, unembedding.weight[entries], bias))

    def _capped(self, logits: Float[torch.Tensor, "*rows vocab"]) -> Float[torch.Tensor, "*rows vocab"]:
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def dissect(model: PreTrainedModel) -> Anatomy:
    """Find blocks, final norm and unembedding of a causal language model.

    Raises NormprobeError if there is not exactly one list of `num_hidden_layers` modules nearest to the decoder's root,
    no norm of the model's width next to it, no unembedding, or a block that is not one of attention (`check_blocks`).
    """
    decoder = model.get_decoder()
    config = model.config.get_text_config()
    name, blocks = find_blocks(decoder, config.num_hidden_layers)
    check_blocks(blocks)
    siblings = decoder.get_submodule(name.rpartition(".")[0]).children()
    norms = [module for module in siblings if _is_norm(module, config.hidden_size)]
    unembedding = model.get_output_embeddings()
    if not norms or unembedding is None:
        raise NormprobeError(
            f"expected a final norm of width {config.hidden_size} and an unembedding in {type(model).__name__}, "
            f"got {len(norms)} norms and {type(unembedding).__name__}; use a decoder with both"
        )
    # Where the embedding is normed too, its norm is registered first.
    return Anatomy(tuple(blocks), norms[-1], unembedding, softcap_of(model), scale_of(model))


def find_blocks(model: nn.Module, n_layers: int) -> tuple[str, nn.ModuleList]:
    """The decoder blocks of a model, and their name in it.

    Raises NormprobeError unless exactly one list of n_layers modules is nearest to the model's root.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    }
    nearest = min((name.count(".") for name in lists), default=0)
    names = [name for name in lists if name.count(".") == nearest]
    if len(names) != 1:
        raise NormprobeError(
            f"expected one list of {n_layers} decoder blocks in {type(model).__name__}, "
            f"got {names or 'none'}; use an architecture with a plain stack of decoder blocks"
        )
    return names[0], lists[names[0]]


def check_blocks(blocks: Iterable[nn.Module]) -> None:
    """Raises NormprobeError for a block without attention, with several, or with a convolution over tokens.

    Recurrent and hybrid blocks all have one of these marks (Mamba, RWKV, LFM2, Falcon-H1, Jamba, Qwen3-Next). They keep
    a state that is no keys and values: a second pass over a token would change it, and they have no attention weights.
    """
    for layer, block in enumerate(blocks):
        named = {name: type(module).__name__ for name, module in block.named_modules() if name}
        attention = [name for name, kind in named.items() if "Attention" in kind]
        outermost = [
            name for name in attention if not any(name.startswith(f"{other}.") for other in attention)
        ]
        stateful = [kind for kind in named.values() if "Rwkv" in kind] + [
            type(block.get_submodule(name.rpartition(".")[0])).__name__
            for name, kind in named.items()
            if kind == "Conv1d"
        ]
        if len(outermost) != 1 or stateful:
            got = f"{stateful[0]} in it" if stateful else f"{len(outermost)} attention modules in it"
            raise NormprobeError(
                f"expected decoder blocks of one attention and an MLP or experts, got {type(block).__name__} with "
                f"{got} as layer {layer}; use a model of attention layers"
            )


def softcap_of(model: PreTrainedModel) -> float | None:
    """The model's final logit softcap, None if it has none."""
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None)


def scale_of(model: PreTrainedModel) -> float:
    """The factor between the unembedding's output and the logits."""
    config = model.config.get_text_config()
    factor, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return (1.0 if factor is None else factor) / (1.0 if divisor is None else divisor)


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.shape == (width,)
