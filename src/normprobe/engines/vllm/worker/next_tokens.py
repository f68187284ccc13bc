"""What is done with the logits of a pass: requests that name draws are sampled with them, and entropies are kept.

vLLM's samplers know no draws keyed by request. So where a request names its own, its logits are replaced, before
vLLM sees them, by those of one token: the one that the inverse of the cumulated probabilities gives. The sampler, to
which the request is greedy, has no choice. That is the same in both model runners, which vLLM's own logits processors
are not, and here the place of each row in its request is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from normprobe.engines.inverse_cdf import inverse_cdf, output_entropy
from normprobe.engines.vllm import patches
from normprobe.engines.vllm.keyed_draws import KeyedDraws
from normprobe.engines.vllm.worker.eligible_rows import EligibleRows, PassLayout
from normprobe.policies.rows import RowFloats


@dataclass(frozen=True)
class NextTokens:
    """The requests of a pass, and the number in its response of the token that each gets next, from 0.

    Negative where the prompt is not read to its end; vLLM then throws the token away.
    """

    requests: tuple[str, ...]
    number: Int[np.ndarray, " request"]

    @classmethod
    def of(cls, layout: PassLayout) -> NextTokens:
        scheduled = layout.start[1:] - layout.start[:-1]
        number = layout.computed.astype(np.int64) + scheduled - layout.prompt
        return cls(tuple(layout.requests[: len(number)]), number)


class Entropies:
    """The output entropy that each token was drawn with, by request and number, on the device.

    Kept while a request is unfinished: a preempted one computes its tokens again, but not the logits before them.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self._at: dict[str, int] = {}
        self._free: list[int] = []
        self._table = torch.zeros(0, length + 1, device=device)

    def __contains__(self, request: str) -> bool:
        return request in self._at

    def __bool__(self) -> bool:
        """Whether the entropies of any request are kept."""
        return bool(self._at)

    def start(self, requests: Iterable[str]) -> None:
        """Keep entropies of these requests from now on; what is known of them stays."""
        for request in requests:
            if request not in self._at:
                if not self._free:
                    n, width = self._table.shape
                    self._table = torch.cat([self._table, self._table.new_zeros(max(n, 8), width)])
                    self._free = list(range(n, len(self._table)))[::-1]
                self._at[request] = self._free.pop()

    def forget(self, requests: Iterable[str]) -> None:
        self._free += [self._at.pop(request) for request in requests if request in self._at]

    def _places(self, requests: Iterable[str]) -> Int[torch.Tensor, " request"]:
        places = np.array([self._at[request] for request in requests], dtype=np.int64)
        return torch.from_numpy(places).to(self._table.device)

    def put(self, requests: Iterable[str], number: Int[np.ndarray, " request"], entropy: RowFloats) -> None:
        """Keep the entropies of the distributions that these tokens are drawn from."""
        self._table[self._places(requests), torch.from_numpy(number + 1).to(self._table.device)] = entropy

    def of(self, rows: EligibleRows, layout: PassLayout) -> RowFloats:
        """The entropy of each row's own token; 0 for the last token of a prompt, which was given."""
        places = self._places(layout.requests[int(place)] for place in rows.request)
        step = torch.from_numpy(rows.position - layout.prompt[rows.request] + 1).to(self._table.device)
        return torch.where(step > 0, self._table[places, step], 0.0)


class LogitsHook:
    """Takes part wherever a model computes logits for the requests of a pass.

    model: vLLM's. entropies: of the requests whose policies read them.
    """

    def __init__(self, model: Any, length: int, device: torch.device) -> None:
        self.entropies = Entropies(length, device)
        self._draws: dict[str, tuple[float, Float[np.ndarray, " step"]]] = {}
        self._next: NextTokens | None = None
        self._device = device
        patches.wrap(model, "compute_logits", self._computing)

    def start(self, parameters: Mapping[str, Any], reading: Collection[str]) -> None:
        """Requests start. parameters: their sampling parameters. reading: those whose policies read entropies."""
        for request, given in parameters.items():
            if given is not None and (draws := KeyedDraws.of(given.extra_args)) is not None:
                self._draws[request] = draws.temperature, draws.uniform(given.max_tokens)
        self.entropies.start(reading)

    def forget(self, requests: Iterable[str]) -> None:
        """Forget requests that have ended."""
        ended = list(requests)
        self.entropies.forget(ended)
        for request in ended:
            self._draws.pop(request, None)

    def begin(self, layout: PassLayout) -> None:
        """A pass begins: the logits computed next are those of its requests."""
        self._next = NextTokens.of(layout) if self._draws or self.entropies else None

    def _computing(self, compute_logits: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wraps the model's `compute_logits`. Passes of no request, and logits of a prompt's tokens, are left alone."""
        logits = compute_logits(*args, **kwargs)
        tokens, self._next = self._next, None
        if tokens is None or logits is None or len(logits) != len(tokens.requests):
            return logits
        read = [i for i, one in enumerate(tokens.requests) if one in self.entropies and tokens.number[i] >= 0]
        if read:
            entropy = output_entropy(logits[read])
            self.entropies.put([tokens.requests[i] for i in read], tokens.number[read], entropy)
        drawn = [i for i, one in enumerate(tokens.requests) if one in self._draws and tokens.number[i] >= 0]
        if drawn:
            self._draw(logits, drawn, tokens)
        return logits

    def _draw(self, logits: torch.Tensor, drawn: list[int], tokens: NextTokens) -> None:
        """Leave these rows of the logits the one token that each request's number stands for."""
        draws = [self._draws[tokens.requests[i]] for i in drawn]
        numbers = zip(draws, tokens.number[drawn], strict=True)
        # Asynchronous scheduling may run a pass after the last token.
        uniform = torch.tensor([uniform[min(at, len(uniform) - 1)] for (_, uniform), at in numbers])
        temperature = torch.tensor([[temperature] for temperature, _ in draws], device=self._device)
        at = torch.tensor(drawn, device=self._device)
        scaled = (logits[at].float() / temperature).to(logits.dtype)  # rounded as by a number, not a tensor
        chosen = inverse_cdf(scaled, uniform.to(self._device))
        only = torch.full_like(scaled, -torch.inf)
        logits[at] = only.scatter(1, chosen[:, None], 0.0)
