"""Results in events that vLLM makes of chunks; without vLLM."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from normprobe.engines.vllm.frontend.streaming import adding_results_to_events

RESULT = {"normprobe": {"n_tokens": 3}}


async def each(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def converted(server: object, chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
    """As vLLM does it: an event for each chunk, one that ends the message, one that ends the stream."""
    async for _ in chunks:
        yield 'event: content_block_delta\ndata: {"type": "content_block_delta"}\n\n'
    yield 'event: message_delta\ndata: {"type": "message_delta", "usage": 3}\n\n'
    yield 'event: message_stop\ndata: {"type": "message_stop"}\n\n'


def texts(*found: Any) -> list[str]:
    """Chunks as vLLM 0.32 hands them on."""
    return [f"data: {json.dumps({'choices': [], **one})}\n\n" for one in found] + ["data: [DONE]\n\n"]


def objects(*found: Any) -> list[Any]:
    """As vLLM 0.33 does."""
    return [SimpleNamespace(choices=[], **({"kv_transfer_params": None} | one)) for one in found]


@pytest.mark.parametrize("chunks", [texts, objects])
def test_the_event_that_ends_a_message_carries_the_results(chunks: Any) -> None:
    async def events(*found: Any) -> list[dict[str, Any]]:
        stream = adding_results_to_events(converted, None, each(chunks({}, *found)))
        return [json.loads(event.partition("data: ")[2]) async for event in stream]

    *before, last, end = asyncio.run(events({"kv_transfer_params": RESULT}))
    assert last == {"type": "message_delta", "usage": 3, "kv_transfer_params": RESULT}
    assert not any("kv_transfer_params" in one for one in (*before, end))
    assert "kv_transfer_params" not in str(asyncio.run(events({"kv_transfer_params": {"other": 1}})))
