"""What stands beside vLLM's engine core: requests come in past it, and leave past it with a step or an abort."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from normprobe.engines.vllm.configuration import Configuration
from normprobe.engines.vllm.core.reports import Reporting
from normprobe.engines.vllm.core.settings_queue import Waiting


class Beside:
    """One core. add_request: the core's own."""

    def __init__(self, core: Any, add_request: Callable[..., None], configuration: Configuration) -> None:
        self.reporting = Reporting(core)
        self.waiting = Waiting(configuration.policy)
        self._core, self._add_request = core, add_request
        finish_requests = core.scheduler.finish_requests

        def finished(requests: Any, status: Any) -> list[Any]:
            named = [requests] if isinstance(requests, str) else requests
            queued = self.waiting.clear() if named is None else []
            for request in queued:
                request.status = status
            names = list(core.scheduler.requests) if named is None else list(named)
            done = finish_requests(names, status)
            self.left(names)
            return [*done, *queued]

        core.scheduler.finish_requests = finished  # aborts, and whatever else ends a request outside a step

    def add(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Now, or when its settings have room."""
        if self.waiting.admits(request, args, kwargs):
            self._admit(request, args, kwargs)

    def stepped(self, outputs: Any) -> None:
        """Results onto the outputs of the requests that finish with them."""
        self.reporting.complete(outputs)
        self.left(
            [one.request_id for group in (outputs or {}).values() for one in group.outputs if one.finished]
        )

    def left(self, requests: Collection[str]) -> None:
        """These have gone, with a result or without."""
        if requests:
            self.reporting.forget(requests)
            for waited in self.waiting.left(requests):
                self._admit(*waited)

    def _admit(self, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._add_request(self._core, request, *args, **kwargs)
        self.reporting.added(request)


def attend(engine_core: type) -> None:
    """Wrap `add_request` of vLLM's `EngineCore`, and the two forms of `step`."""
    add_request = engine_core.add_request  # type: ignore[attr-defined]

    def beside(core: Any) -> Beside | None:
        """None without a configuration."""
        if not hasattr(core, "_normprobe"):
            configuration = Configuration.of(core.vllm_config.additional_config)
            core._normprobe = None if configuration is None else Beside(core, add_request, configuration)
        return core._normprobe

    @functools.wraps(add_request)
    def added(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        if (ours := beside(self)) is None:
            add_request(self, request, *args, **kwargs)
        else:
            ours.add(request, *args, **kwargs)

    def attended(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
            outputs, executed = step(self, *args, **kwargs)
            if (ours := beside(self)) is not None:
                ours.stepped(outputs)
            return outputs, executed

        return stepped

    engine_core.add_request = added  # type: ignore[attr-defined]
    for name in ("step", "step_with_batch_queue"):
        setattr(engine_core, name, attended(getattr(engine_core, name)))
