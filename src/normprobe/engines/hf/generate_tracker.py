"""Tells a policy which request and which step each row of a pass of `model.generate` is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast
from weakref import WeakSet

import torch
from transformers import Cache, CompileConfig, PreTrainedModel
from transformers.cache_utils import StaticLayer

from normprobe.engines.hf.generate_call import GenerateCall, end_tokens
from normprobe.engines.hf.intervention import Intervention, PassRecord
from normprobe.errors import NormprobeError
from normprobe.models.context import context_of

FINISHED = -(2**40)
"""The step of a row after its end: it counts on from here and never gets to 0."""
PROMPT = -1
"""The step of a row whose prompt goes on."""


class GenerateTracker:
    """Tells slots and steps from the calls of a model: a call of generate(), or a new cache, is a new batch.

    The passes of a call first read what is left of the prompt, in one or several chunks; each later pass is a token.
    """

    def __init__(
        self, intervention: Intervention, model: PreTrainedModel, requests: Sequence[str] | None
    ) -> None:
        self.intervention = intervention
        self.model = model
        self.requests = requests
        self._generate = cast(Callable[..., Any], model.generate)
        self._longest = context_of(model)
        self._call: GenerateCall | None = None
        self._cache: Cache | None = None
        self._earlier: WeakSet[Cache] = WeakSet()
        self._ends = self._slot = self._step = torch.empty(0)
        self._length = self._left = self._n_begun = 0
        self._room: int | None = None
        self._graph: Callable[..., Any] | None = None
        self._graph_options: dict[str, Any] = {}

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Stands in for the model's own `generate`. Raises NormprobeError for a call that a policy cannot follow."""
        if self._call is not None:
            raise NormprobeError(
                "expected one generation at a time inside intervene, got a second one; wait for the first to end"
            )
        self._call, self._cache = GenerateCall.of(self.model, args, kwargs), None
        try:
            return self._generate(*args, **kwargs)
        except BaseException:
            self.intervention.abandon()
            raise
        finally:
            self._call = None

    def refuse_continuous_batching(self, *_: Any, **__: Any) -> None:
        """Stands in for what every way of continuous batching calls first."""
        raise NormprobeError(
            "expected model.generate inside intervene, got continuous batching (generate_batch, "
            "cache_implementation='paged'), whose passes mix requests; use generate, or the plugin of vLLM"
        )

    def check_ended(self) -> None:
        """Raises NormprobeError if a generation, in another thread, goes on."""
        if self._call is not None:
            raise NormprobeError(
                "expected generate() to end inside the block, got one that still runs; join its thread inside"
            )

    def __call__(self, _model: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        states = kwargs.get("inputs_embeds") if ids is None else ids
        # By type: transformers 5.24 calls it `cache`, before that it was `past_key_values`.
        cache = next((value for value in kwargs.values() if isinstance(value, Cache)), None)
        if not isinstance(states, torch.Tensor) or cache is None:
            raise NormprobeError(
                "expected a pass with input_ids and a key-value cache, got one without; call model.generate with "
                "token ids and use_cache=True"
            )
        rows, tokens = states.shape[:2]
        if cache is not self._cache:
            self._start(rows, tokens, cache, states.device)
        if rows != len(self._slot) or tokens > max(self._left, 1):
            raise NormprobeError(
                f"expected {len(self._slot)} rows of at most {max(self._left, 1)} tokens in a pass, got {rows} rows of "
                f"{tokens}; leave drafts, further turns and batches that shrink to model.generate"
            )
        self._length += tokens
        if self._left:
            self._left -= tokens
            step = torch.full_like(self._slot, PROMPT if self._left else 0)
            if not self._left and _ends_in_padding(kwargs.get("attention_mask"), self._length):
                raise NormprobeError(
                    "expected prompts padded on the left, got padding on the right; set padding_side='left'"
                )
        else:
            step = self._step + 1
            if ids is not None:
                step.masked_fill_((ids == self._ends).any(dim=1), FINISHED)
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

    def _start(self, rows: int, tokens: int, cache: Cache, device: torch.device) -> None:
        """Begin a batch. The host may wait here."""
        call, cached = self._call, int(cache.get_seq_length())
        if (call is None and cache in self._earlier) or (call is not None and self._cache is not None):
            raise NormprobeError(
                "expected the passes of one generation after another, got a pass on another cache in between; "
                "call the model outside intervene, or leave the passes to model.generate"
            )
        total = cached + tokens if call is None else call.n_prompt
        if self._longest is not None and total > self._longest:
            raise NormprobeError(
                f"expected prompts of at most {self._longest} tokens, got {total}; shorten them"
            )
        names = list(self.requests) if self.requests is not None else [str(row) for row in range(rows)]
        if len(names) != rows:
            raise NormprobeError(
                f"expected a name for each of {rows} rows, got {len(names)}; name every sequence of the batch"
            )
        static = [layer for layer in cache.layers if isinstance(layer, StaticLayer) and not layer.is_sliding]
        self._room = min((layer.max_cache_len for layer in static), default=None)
        self._length, self._left = cached, total - cached
        self._cache = cache
        self._earlier.add(cache)
        ends = end_tokens(self.model.generation_config) if call is None else call.ends
        self._ends = torch.tensor(ends, dtype=torch.int64, device=device)
        self._slot = torch.arange(rows, device=device)
        self._step = torch.zeros_like(self._slot)
        self.intervention.begin(names, device, first=self._n_begun)
        self._n_begun += rows


def _whole_pass(
    model: PreTrainedModel, intervention: Intervention, inputs: dict[str, Any]
) -> tuple[Any, PassRecord | None]:
    return model.forward(**inputs), intervention.end()


def _ends_in_padding(mask: object, n_tokens: int) -> bool:
    """Whether the prompt of some row ends in padding. Once per batch, so the host may wait here.

    mask: [row, key] as a user gives it, or what generate() makes of it for a static cache: by kind of attention,
    whether a query sees a key [row, 1, query, key]; a last token that is padding does not see itself.
    n_tokens: the tokens of a row so far, the last of which is the prompt's last.
    """
    if isinstance(mask, dict):
        masks = [one for one in mask.values() if isinstance(one, torch.Tensor)]
        mask = max(masks, key=lambda one: one.shape[-1], default=None)
    if not isinstance(mask, torch.Tensor) or (mask.ndim == 4 and mask.dtype != torch.bool):
        return False
    own = mask[:, 0, -1] if mask.ndim == 4 else mask
    return n_tokens <= own.shape[1] and not bool(own[:, n_tokens - 1].all())
