"""Results in streamed responses: vLLM leaves `kv_transfer_params` out of its chunks, so this puts them there.

They come in the chunk that ends the response, or each of its samples, under the key that whole responses have.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from normprobe.engines.vllm.configuration import FIELD

_PREFIX, _END = "data: ", "\n\n"


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
    content["kv_transfer_params"] = latest.pop()
    return f"{_PREFIX}{json.dumps(content, ensure_ascii=False)}{_END}"
