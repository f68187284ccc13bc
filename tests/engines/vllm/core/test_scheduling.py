"""How requests to a vLLM engine wait for the settings of others; without vLLM."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.engines.vllm.core import scheduling
from normprobe.engines.vllm.core.scheduling import SettingsQueue


@dataclass
class Request:
    """As vLLM's core has it."""

    request_id: str
    settings: str | None
    sampling_params: Any = field(init=False)

    def __post_init__(self) -> None:
        extra = None if self.settings is None else {"normprobe": self.settings}
        self.sampling_params = SimpleNamespace(extra_args=extra)


@given(
    st.lists(
        st.tuples(st.integers(0, 19), st.sampled_from([None, "default", "in graphs", *"abcdefgh"])),
        max_size=80,
    ),
    st.integers(1, 4),
)
def test_few_settings_are_at_work_and_nobody_is_lost(events: list[tuple[int, str | None]], most: int) -> None:
    """A request that is there already leaves, any other comes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scheduling, "MOST_SETTINGS", most)
        line = SettingsQueue(("default", "in graphs"))
        running: dict[str, str | None] = {}
        queued: dict[str, str | None] = {}

        def held() -> set[str]:
            return {text for text in running.values() if text not in (None, "default", "in graphs")}

        for number, settings in events:
            name = f"r{number}"
            if name in running or name in queued:
                running.pop(name, None)
                queued.pop(name, None)
                started = [request for request, _ in line.remove([name])]
                assert [request.request_id for request in started] == [
                    other for other in queued if any(other == one.request_id for one in started)
                ]
                for request in started:
                    running[request.request_id] = queued.pop(request.request_id)
            elif line.admits(Request(name, settings), "given"):
                running[name] = settings
            else:
                queued[name] = settings
            assert len(held()) <= most
            for text in queued.values():
                assert text not in held()
            assert not queued or len(held()) == most
        for _ in events:
            for name in [*running]:
                running.pop(name)
                for request, _ in line.remove([name]):
                    running[request.request_id] = queued.pop(request.request_id)
        assert (queued, line._running, line._settings, line._queue) == ({}, {}, {}, {})
