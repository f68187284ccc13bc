"""What is added to vLLM's engine core: requests may wait before it admits them, and leave it with results.

A policy's state is as wide as the engine for each distinct settings in use. So at most `MOST_SETTINGS` are in use at a
time, as with vLLM's adapters, and requests with others wait. Policies that are there from the start do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.configuration import FIELD, Configuration
from normprobe.engines.vllm.core.reports import Reports

MOST_SETTINGS = 8


class SettingsQueue:
    """Decides which requests may run. lasting: JSON of the policies that are there from the start.

    A request is queued together with the other arguments of vLLM's `add_request`, and comes back with them.
    """

    def __init__(self, lasting: Collection[str]) -> None:
        self._lasting = lasting
        self._running: dict[str, str] = {}
        self._settings: Counter[str] = Counter()
        self._queue: dict[str, tuple[Any, ...]] = {}

    def admits(self, request: Any, *arguments: Any) -> bool:
        """Whether the request may run now; if not, it is queued."""
        if _settings(request) in (None, *self._lasting) or self._starts(request):
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


class CoreExtension:
    """The queue and the results of one engine core. add_request: the core's own method."""

    def __init__(self, core: Any, add_request: Callable[..., None], configuration: Configuration) -> None:
        self.reports = Reports(core)
        self.queue = SettingsQueue(configuration.lasting)
        self._core, self._add_request = core, add_request
        patches.wrap(core.scheduler, "finish_requests", self._finishing)

    def _finishing(self, finish_requests: Callable[..., list[Any]], requests: Any, status: Any) -> list[Any]:
        """Wraps `Scheduler.finish_requests`, through which requests end outside a step: aborts, a shutdown."""
        named = [requests] if isinstance(requests, str) else requests
        queued = self.queue.clear() if named is None else []
        for request in queued:
            request.status = status
        names = list(self._core.scheduler.requests) if named is None else list(named)
        done = finish_requests(names, status)
        self.remove(names)
        return [*done, *queued]

    def add(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Hand a request to the core, now or when its settings have room."""
        if self.queue.admits(request, args, kwargs):
            self._admit(request, args, kwargs)

    def complete(self, outputs: Any) -> None:
        """After a step: put results onto the outputs of the requests that finish with them."""
        self.reports.complete(outputs)
        self.remove(
            [one.request_id for group in (outputs or {}).values() for one in group.outputs if one.finished]
        )

    def remove(self, requests: Collection[str]) -> None:
        """Forget requests that have ended, and admit those that waited for them."""
        if requests:
            self.reports.forget(requests)
            for waited in self.queue.remove(requests):
                self._admit(*waited)

    def _admit(self, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._add_request(self._core, request, *args, **kwargs)
        self.reports.follow(request)


def adding(add_request: Callable[..., None], core: Any, *args: Any, **kwargs: Any) -> None:
    """Wraps `EngineCore.add_request`; the first request attaches the extension to a core with a configuration."""
    if not hasattr(core, "normprobe"):
        configuration = Configuration.of(core.vllm_config.additional_config)
        core.normprobe = configuration and CoreExtension(core, add_request, configuration)
    if core.normprobe is None:
        add_request(core, *args, **kwargs)
    else:
        core.normprobe.add(*args, **kwargs)


def completing(step: Callable[..., Any], core: Any) -> Any:
    """Wraps `EngineCore.step` or `step_with_batch_queue`: results come with the outputs of finished requests."""
    outputs, executed = step(core)
    if (extension := getattr(core, "normprobe", None)) is not None:
        extension.complete(outputs)
    return outputs, executed
