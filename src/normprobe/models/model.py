"""An open model: weights, tokenizer, decoder blocks, chat modes and identity together."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from normprobe.models.architectures import Anatomy, dissect
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity, identify
from normprobe.models.initialise import initialise

BUNDLED = "tiny-thinker"


@dataclass(frozen=True)
class OpenModel:
    """A causal language model in eval mode, ready to be measured. `open_model` makes one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    chat: Chat
    identity: ModelIdentity

    @property
    def blocks(self) -> list[nn.Module]:
        """The decoder blocks, layer 0 first."""
        return list(self.anatomy.blocks)

    @property
    def device(self) -> torch.device:
        """Where inputs have to be."""
        return self.model.device

    def unembed(self, hidden: Float[torch.Tensor, "*rows d"]) -> Float[torch.Tensor, "*rows vocab"]:
        """The logit lens: final norm, unembedding and softcap on any site; float32 logits."""
        return self.anatomy.unembed(hidden)

    @contextmanager
    def returning_attentions(self) -> Iterator[None]:
        """Eager attention inside the block: slower, and the only kind that can return its weights."""
        before = self.model.config._attn_implementation or "eager"
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    def untrained(self, seed: int) -> OpenModel:
        """The untrained twin: a fresh network from `seed`.

        The bundled model's twin is the very initialisation its training started from, whatever `seed` is.
        """
        if self.identity.name.partition(":")[0] == BUNDLED:
            from normprobe.problems.testbed import bundled

            seed = bundled.initial_seed()
        return self.fresh(seed)

    def fresh(self, seed: int) -> OpenModel:
        """A random network: same configuration, dtype and device, weights drawn by `initialise` from `seed`."""
        # transformers draws initial weights of its own, from the global generator only: fork it, they are overwritten.
        with torch.random.fork_rng(devices=[]):
            config = copy.deepcopy(self.model.config)
            twin = type(self.model)._from_config(config, attn_implementation=config._attn_implementation)
        initialise(twin, torch.Generator().manual_seed(seed))
        twin = twin.to(device=self.device, dtype=self.model.dtype).eval()  # type: ignore[call-arg]
        name = f"{self.identity.name.partition(':')[0]}:untrained"
        return OpenModel(
            twin, self.tokenizer, dissect(twin), self.chat, identify(twin, self.tokenizer, name, None)
        )
