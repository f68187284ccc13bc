"""An open model: weights, tokenizer, decoder blocks, chat modes and identity together."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.models.architectures import Anatomy, dissect
from normprobe.models.chat import Chat
from normprobe.models.context import context_of
from normprobe.models.identity import ModelIdentity, identify
from normprobe.models.initialise import initialise
from normprobe.models.placement import device_of, is_spread, spread


@dataclass(frozen=True)
class OpenModel:
    """A causal language model in eval mode, ready to be measured. `open_model` makes one.

    initial_seed: from which `initialise` drew the weights that its training started from; None if that is not known.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    chat: Chat
    identity: ModelIdentity
    initial_seed: int | None = None

    @property
    def blocks(self) -> list[nn.Module]:
        """The decoder blocks, layer 0 first."""
        return list(self.anatomy.blocks)

    @property
    def device(self) -> torch.device:
        """Where inputs have to be: where the embedding is, if the model is spread over several devices."""
        return device_of(self.model.get_input_embeddings())

    @property
    def context(self) -> int | None:
        """Tokens that a prompt and its response may have together; None where the model sets no limit."""
        return context_of(self.model)

    def unembed(self, hidden: Float[torch.Tensor, "*rows d"]) -> Float[torch.Tensor, "*rows vocab"]:
        """The logit lens: final norm, unembedding and softcap on any site; float32 logits."""
        return self.anatomy.unembed(hidden)

    def untrained(self, seed: int) -> OpenModel:
        """The untrained twin: a fresh network from `seed`.

        Where the seed of its own initialisation is known (the bundled models), the twin is the very network that its
        training started from, whatever `seed` is.
        """
        return self.fresh(seed if self.initial_seed is None else self.initial_seed)

    def fresh(self, seed: int) -> OpenModel:
        """A random network: same configuration, dtype and device, weights drawn by `initialise` from `seed`."""
        # transformers draws initial weights of its own, from the global generator only: fork it, they are overwritten.
        with torch.random.fork_rng(devices=[]):
            config = copy.deepcopy(self.model.config)
            # In its dtype from the start: a cast would round the rotary frequencies too.
            twin = type(self.model)._from_config(
                config, attn_implementation=config._attn_implementation, dtype=self.model.dtype
            )
        initialise(twin, torch.Generator().manual_seed(seed))
        twin = spread(twin) if is_spread(self.model) else _moved(twin, self.device)
        name = f"{self.identity.name.removesuffix(':early').removesuffix(':untrained')}:untrained"
        return OpenModel(
            twin.eval(),
            self.tokenizer,
            dissect(twin),
            self.chat,
            identify(twin, self.tokenizer, name, None),
            self.initial_seed,
        )


def _moved(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    return model.to(device)  # pyright: ignore[reportArgumentType]  typed as unbound
