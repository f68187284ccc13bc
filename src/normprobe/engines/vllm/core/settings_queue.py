"""The queue of requests whose settings have to wait.

A policy's state is as wide as the engine for each distinct settings in use. So at most `MOST_SETTINGS` are in use at a
time, as with vLLM's adapters, and requests with others wait. The engine's default policy does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from normprobe.engines.vllm.configuration import FIELD

MOST_SETTINGS = 8


class SettingsQueue:
    """Decides which requests may run. default: the engine's default policy, as JSON.

    A request is queued together with the other arguments of vLLM's `add_request`, and comes back with them.
    """

    def __init__(self, default: str | None) -> None:
        self._default = default
        self._running: dict[str, str] = {}
        self._settings: Counter[str] = Counter()
        self._queue: dict[str, tuple[Any, ...]] = {}

    def admits(self, request: Any, *arguments: Any) -> bool:
        """Whether the request may run now; if not, it is queued."""
        if _settings(request) in (None, self._default) or self._starts(request):
            return True
        self._queue[request.request_id] = request, *arguments
        return False

    def remove(self, requests: Iterable[str]) -> list[tuple[Any, ...]]:
        """Forget requests that have ended; returns those that may run now, in the order in which they came."""
        for name in requests:
            self._queue.pop(name, None)
            if (text := self._running.pop(name, None)) is not None:
                self._settings[text] -= 1
                if not self._settings[text]:
                    del self._settings[text]
        starting = [name for name, (request, *_) in self._queue.items() if self._starts(request)]
        return [self._queue.pop(name) for name in starting]

    def clear(self) -> list[Any]:
        """Empty the queue, since all requests are to end; returns the requests that were in it."""
        queued = [request for request, *_ in self._queue.values()]
        self._queue.clear()
        return queued

    def _starts(self, request: Any) -> bool:
        """Whether the request's settings have room; they are in use from then on."""
        text = _settings(request)
        if text not in self._settings and len(self._settings) >= MOST_SETTINGS:
            return False
        self._running[request.request_id] = text
        self._settings[text] += 1
        return True


def _settings(request: Any) -> Any:
    return (getattr(request.sampling_params, "extra_args", None) or {}).get(FIELD)
