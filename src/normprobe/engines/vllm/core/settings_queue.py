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
        text = _settings(request)
        if text in (None, self._default):
            return True
        if self._has_room(text):
            self._start(request.request_id, text)
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
        starting = []
        for name, waiting in list(self._queue.items()):
            text = _settings(waiting[0])
            if self._has_room(text):
                self._start(name, text)
                starting.append(self._queue.pop(name))
        return starting

    def clear(self) -> list[Any]:
        """Empty the queue, since all requests are to end; returns the requests that were in it."""
        queued = [request for request, *_ in self._queue.values()]
        self._queue.clear()
        return queued

    def _has_room(self, text: str) -> bool:
        return text in self._settings or len(self._settings) < MOST_SETTINGS

    def _start(self, name: str, text: str) -> None:
        self._running[name] = text
        self._settings[text] += 1


def _settings(request: Any) -> Any:
    return (getattr(request.sampling_params, "extra_args", None) or {}).get(FIELD)
