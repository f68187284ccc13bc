"""Results in streamed responses: where vLLM leaves `kv_transfer_params` out of its chunks, this puts them there.

They come in the chunk that ends the response, or each of its samples, under the key that whole responses have.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from normprobe.engines.vllm.configuration import FIELD

_PREFIX, _END, _KEY = "data: ", "\n\n", "kv_transfer_params"


async def adding_results(
    generate: Callable[..., AsyncIterator[str]], *args: Any, **kwargs: Any
) -> AsyncIterator[str]:
    """Wraps one of the servers' generators of chunks: those that end a response also carry its results."""
    given, latest = inspect.signature(generate).bind(*args, **kwargs), []
    given.arguments["result_generator"] = _watch(given.arguments["result_generator"], latest)
    async for chunk in generate(*given.args, **given.kwargs):
        yield _add_results(chunk, latest) if latest else chunk


async def _watch(outputs: AsyncIterator[Any], latest: list[Any]) -> AsyncIterator[Any]:
    """The outputs as they come; results among them are left in `latest` before vLLM makes a chunk of them."""
    async for item in outputs:
        # Completions number their prompts; as in whole responses, only the first one's results are passed on.
        number, output = item if isinstance(item, tuple) else (0, item)
        if number == 0 and FIELD in (output.kv_transfer_params or {}):
            latest[:] = [output.kv_transfer_params]
        yield item


def _add_results(chunk: str, latest: list[Any]) -> str:
    """The chunk with the results, if it ends a choice or comes after all of them; any other chunk as it is."""
    if not chunk.startswith(_PREFIX + "{"):  # the end of the stream
        return chunk
    content = json.loads(chunk[len(_PREFIX) :])
    choices = content.get("choices")
    if choices is None or (choices and not any(choice.get("finish_reason") for choice in choices)):
        return chunk
    content[_KEY] = latest.pop()
    return f"{_PREFIX}{json.dumps(content, ensure_ascii=False)}{_END}"


async def adding_results_to_events(
    convert: Callable[..., AsyncIterator[str]], server: Any, chunks: AsyncIterator[Any]
) -> AsyncIterator[str]:
    """Wraps what makes events in Anthropic's style of chunks with results: `message_delta`, which ends the message,
    carries them on."""
    latest: list[Any] = []
    async for event in convert(server, _watch_chunks(chunks, latest)):
        head, _, content = event.partition(_PREFIX)
        if latest and "message_delta" in head:
            event = f"{head}{_PREFIX}{json.dumps(json.loads(content) | {_KEY: latest.pop()}, ensure_ascii=False)}{_END}"
        yield event


async def _watch_chunks(chunks: AsyncIterator[Any], latest: list[Any]) -> AsyncIterator[Any]:
    """The chunks as they come, text in vLLM 0.32 and objects in 0.33; results among them are left in `latest`."""
    async for chunk in chunks:
        if not isinstance(chunk, str):
            found = getattr(chunk, _KEY, None)
        else:
            found = json.loads(chunk[len(_PREFIX) :]).get(_KEY) if f'"{_KEY}"' in chunk else None
        if FIELD in (found or {}):
            latest[:] = [found]
        yield chunk
