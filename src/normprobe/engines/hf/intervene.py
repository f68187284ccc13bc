"""`with intervene(model, policy, profile): model.generate(...)`: policies under Transformers' own generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from transformers import Cache, CompileConfig, PreTrainedModel
from transformers.cache_utils import StaticLayer

from normprobe.engines.hf.intervention import Intervention, PassRecord, attached
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.models.architectures import dissect
from normprobe.models.context import context_of
from normprobe.models.identity import weights_fingerprint
from normprobe.models.model import OpenModel
from normprobe.policies.policy import Policy
from normprobe.policies.spec import Spec, build

FINISHED = -(2**40)
"""The step of a row after its end: it counts on from here and never gets to 0."""


@contextmanager
def intervene(
    model: PreTrainedModel | OpenModel,
    policy: Policy | Spec,
    profile: LayerProfile | Path | str | None = None,
    *,
    requests: Sequence[str] | None = None,
    record: bool = False,
    always_on: bool = False,
    quiet: bool = False,
) -> Iterator[Intervention]:
    """Everything that `model.generate` writes inside the block is written under the policy, prompt by prompt.

    model: any causal language model of Transformers whose decoder blocks `normprobe.models` finds; greedy or sampled,
        any batch padded on the left, dynamic or static cache. Beam search is not supported: beams change rows.
    policy: a policy; its name ("alrr"); or a mapping with its name and settings ({"policy": "alrr", "damping": 0.5}).
        The last two take thresholds from `profile`, which has to be one of this model.
    requests: names that key random draws, one per row of the batch; by default "0", "1", …
    record: keep every event (`intervention.events()`).
    always_on: extra passes compute all rows, so that no size depends on the data. Then generate() may compile its
        passes, as it does with a static cache on a GPU: model, policy and history become one graph.
    quiet: no warning if the policy never acted.

    A row is finished once it has been fed an end-of-sequence token: what generate() writes behind it is left alone.
    Raises NormprobeError, before any token, for a layer that the model lacks, a profile of another model or settings
    that make no sense, or where generate() would compile without `always_on`; before a static cache overflows; after a
    pass that left out a layer; at the end if the model never ran. Warns (UntriggeredWarning) if the policy never acted.
    """
    network = model.model if isinstance(model, OpenModel) else model
    blocks = dissect(network).blocks
    if isinstance(profile, str | Path):
        profile = LayerProfile.load(Path(profile))
    if profile is not None:
        profile.for_model(_identity(model))
    if not isinstance(policy, Policy):
        policy = build(policy, profile)
    width = network.config.get_text_config().hidden_size
    intervention = Intervention(policy, width, record=record, always_on=always_on)
    tracker = _GenerateTracker(intervention, network, requests)
    with attached(blocks, intervention, quiet=quiet):
        before = network.register_forward_pre_hook(tracker, with_kwargs=True)
        after = network.register_forward_hook(lambda *_: intervention.finish())
        network.get_compiled_call = tracker.compiled_call  # type: ignore[method-assign]
        try:
            yield intervention
        finally:
            before.remove()
            after.remove()
            del network.get_compiled_call


def _identity(model: PreTrainedModel | OpenModel) -> dict[str, Any]:
    if isinstance(model, OpenModel):
        return model.identity.to_dict()
    config = model.config.get_text_config()
    return {
        "name": model.name_or_path or type(model).__name__,
        "weights": weights_fingerprint(model),
        "architecture": type(model).__name__,
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "vocab": config.vocab_size,
    }


class _GenerateTracker:
    """Tells slots and steps from the calls of the model: a new cache is a new batch, each later pass one token."""

    def __init__(
        self, intervention: Intervention, model: PreTrainedModel, requests: Sequence[str] | None
    ) -> None:
        self.intervention = intervention
        self.model = model
        self.requests = requests
        eos = None if model.generation_config is None else model.generation_config.eos_token_id
        ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        self._eos = torch.tensor(ids, dtype=torch.int64, device=model.device)
        self._longest = context_of(model)
        self._cache: Cache | None = None
        self._slot = self._step = torch.empty(0)
        self._length = 0
        self._room: int | None = None
        self._graph: Callable[..., Any] | None = None
        self._graph_options: dict[str, Any] = {}

    def __call__(self, _model: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids") if not args else args[0]
        # By type: transformers 5.24 calls it `cache`, before that it was `past_key_values`.
        cache = next((value for value in kwargs.values() if isinstance(value, Cache)), None)
        if not isinstance(ids, torch.Tensor) or cache is None:
            raise NormprobeError(
                "expected a pass with input_ids and a key-value cache, got one without; call model.generate with "
                "token ids and use_cache=True"
            )
        if cache is not self._cache:
            self._start(ids, kwargs.get("attention_mask"), cache)
        elif ids.shape[1] != 1:
            raise NormprobeError(
                f"expected one token per row after the prompt, got {ids.shape[1]}; switch assisted decoding off"
            )
        else:
            self._length += 1
            ended = (ids == self._eos).any(dim=1)
            step = (self._step + 1).masked_fill_(ended, FINISHED)
            # A CUDA graph reads the state of a policy, and this, where it was when the graph was recorded.
            self._step = self._step.copy_(step) if self.intervention.always_on else step
        if self._room is not None and self._length > self._room:
            raise NormprobeError(
                f"expected prompts and responses of at most {self._room} tokens, the length of the static cache, got "
                f"{self._length}; give a longer cache or lower max_new_tokens"
            )
        self.intervention.place(self._slot, self._step)

    def compiled_call(self, config: CompileConfig | None) -> Callable[..., Any]:
        """Stands in for the model's own `get_compiled_call`, whose graphs may have been made without the hooks."""
        if not self.intervention.always_on:
            raise NormprobeError(
                "expected a forward pass that is not compiled, got generate() with a static cache, which compiles; "
                "give intervene always_on=True, or generate disable_compile=True"
            )
        options: dict[str, Any] = (config or self.model._default_compile_config()).to_dict()
        options |= {"fullgraph": True}
        if self._graph is None or options != self._graph_options:
            # Dynamo keeps graphs by code object, and its guards overlook hooks: a copy has no graphs of other policies.
            own = FunctionType(_whole_pass.__code__.replace(), globals())
            self._graph, self._graph_options = torch.compile(own, **options), options
        graph = self._graph

        def forward(**inputs: Any) -> Any:
            self(self.model, (), inputs)
            output, record = graph(self.model, self.intervention, inputs)
            self.intervention.keep(record)
            return output

        return forward

    def _start(self, ids: torch.Tensor, mask: object, cache: Cache) -> None:
        if _ends_in_padding(mask, ids.shape[1]):
            raise NormprobeError(
                "expected prompts padded on the left, got padding on the right; set padding_side='left'"
            )
        if self._longest is not None and ids.shape[1] > self._longest:
            raise NormprobeError(
                f"expected prompts of at most {self._longest} tokens, got {ids.shape[1]}; shorten them"
            )
        static = [layer for layer in cache.layers if isinstance(layer, StaticLayer) and not layer.is_sliding]
        self._room = min((layer.max_cache_len for layer in static), default=None)
        self._length = int(cache.get_seq_length()) + ids.shape[1]
        names = list(self.requests) if self.requests is not None else [str(row) for row in range(len(ids))]
        if len(names) != len(ids):
            raise NormprobeError(
                f"expected a name for each of {len(ids)} rows, got {len(names)}; name every prompt of the batch"
            )
        self._cache = cache
        self._slot = torch.arange(len(ids), device=ids.device)
        self._step = torch.zeros_like(self._slot)
        self.intervention.begin(names, ids.device)


def _whole_pass(
    model: PreTrainedModel, intervention: Intervention, inputs: dict[str, Any]
) -> tuple[Any, PassRecord | None]:
    return model.forward(**inputs), intervention.end()


def _ends_in_padding(mask: object, n_tokens: int) -> bool:
    """Whether some prompt is padded on the right. Once per batch, so the host may wait here.

    mask: [row, key] as a user gives it, or what generate() makes of it for a static cache: by kind of attention,
    whether a query sees a key [row, 1, query, key]; a last token that is padding does not see itself.
    """
    if isinstance(mask, dict):
        mask = next(iter(mask.values()), None)
    if not isinstance(mask, torch.Tensor) or (mask.ndim == 4 and mask.dtype != torch.bool):
        return False
    own = mask[:, 0, -1, n_tokens - 1] if mask.ndim == 4 else mask[:, n_tokens - 1]
    return not bool(own.all())
