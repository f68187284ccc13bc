"""Results of streamed responses: vLLM leaves `kv_transfer_params` out of its chunks, so they are put there here, where
they are in responses that are not streamed: in the chunk that ends the response, or each of its samples."""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from normprobe.engines.vllm.configuration import FIELD

_PREFIX, _END = "data: ", "\n\n"


def tell_in_streams() -> None:
    """Wrap the servers' two generators of chunks, once per process."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    for serving, name in (
        (OpenAIServingChat, "chat_completion_stream_generator"),
        (OpenAIServingCompletion, "completion_stream_generator"),
    ):
        if not hasattr(generate := getattr(serving, name), "_normprobe"):
            setattr(serving, name, _telling(generate))


def _telling(generate: Callable[..., AsyncIterator[str]]) -> Callable[..., AsyncIterator[str]]:
    signature = inspect.signature(generate)

    @functools.wraps(generate)
    async def told(*args: Any, **kwargs: Any) -> AsyncIterator[str]:
        given, fresh = signature.bind(*args, **kwargs), []
        given.arguments["result_generator"] = _watched(given.arguments["result_generator"], fresh)
        async for chunk in generate(*given.args, **given.kwargs):
            yield _with_results(chunk, fresh) if fresh else chunk

    told._normprobe = True  # type: ignore[attr-defined]
    return told


async def _watched(outputs: AsyncIterator[Any], fresh: list[Any]) -> AsyncIterator[Any]:
    """The outputs as they come; the latest results among them are left in `fresh` before the chunk made of them."""
    async for item in outputs:
        # Completions number their prompts; as in responses that are not streamed, the first one's results are told.
        number, output = item if isinstance(item, tuple) else (0, item)
        if number == 0 and FIELD in (output.kv_transfer_params or {}):
            fresh[:] = [output.kv_transfer_params]
        yield item


def _with_results(chunk: str, fresh: list[Any]) -> str:
    """The chunk with the results, if it ends a choice, or comes after all of them; else as it is."""
    if not chunk.startswith(_PREFIX + "{"):  # the end of the stream
        return chunk
    content = json.loads(chunk[len(_PREFIX) :])
    choices = content.get("choices")
    if choices is None or (choices and not any(choice.get("finish_reason") for choice in choices)):
        return chunk
    content["kv_transfer_params"] = fresh.pop()
    return f"{_PREFIX}{json.dumps(content, ensure_ascii=False)}{_END}"
