"""Requests whose settings have to wait. State is as wide as the engine for each distinct settings at work, and clients
invent settings; so at most `MOST_SETTINGS` are at work at a time, as with vLLM's adapters, and requests with others
wait, as long as it takes. The engine's default policy does not count, and settings at work admit more requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from normprobe.engines.vllm.configuration import FIELD

MOST_SETTINGS = 8


class Waiting:
    """default: the engine's default policy, as JSON.

    A request comes with what vLLM's core was given beside it, which is kept and given back with it.
    """

    def __init__(self, default: str | None) -> None:
        self._default = default
        self._at_work: dict[str, str] = {}
        self._settings: Counter[str] = Counter()
        self._queue: dict[str, tuple[Any, ...]] = {}

    def admits(self, request: Any, *given: Any) -> bool:
        """Whether it may start now; if not, it waits."""
        text = _settings(request)
        if text in (None, self._default):
            return True
        if self._room(text):
            self._start(request.request_id, text)
            return True
        self._queue[request.request_id] = request, *given
        return False

    def left(self, requests: Iterable[str]) -> list[tuple[Any, ...]]:
        """These are gone. Those that start in their place, in the order in which they came."""
        for name in requests:
            self._queue.pop(name, None)
            if (text := self._at_work.pop(name, None)) is not None:
                self._settings[text] -= 1
                if not self._settings[text]:
                    del self._settings[text]
        starting = []
        for name, waiting in list(self._queue.items()):
            text = _settings(waiting[0])
            if self._room(text):
                self._start(name, text)
                starting.append(self._queue.pop(name))
        return starting

    def clear(self) -> list[Any]:
        """All requests are to end: those that waited, which no longer do."""
        queued = [request for request, *_ in self._queue.values()]
        self._queue.clear()
        return queued

    def _room(self, text: str) -> bool:
        return text in self._settings or len(self._settings) < MOST_SETTINGS

    def _start(self, name: str, text: str) -> None:
        self._at_work[name] = text
        self._settings[text] += 1


def _settings(request: Any) -> Any:
    return (getattr(request.sampling_params, "extra_args", None) or {}).get(FIELD)
