"""The asynchronous engine in processes of its own: a thousand requests of random lengths, settings and aborts."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

from psutil import Process
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from normprobe.problems import bundled

REQUESTS, AT_ONCE, LONGEST, PARTS = 1000, 24, 30, 3
GROWTH = 8 << 20
"""Bytes that the engine's processes may grow by in the last part; in the first ones allocators warm up."""
SETTINGS: list[Any] = [
    None,
    "probe",
    "alrr",
    {"policy": "alrr", "tau": {"9": 13.0}, "growth": -1.0, "blow_up": 9.0},
    {"policy": "suppress", "tau": {"7": 12.0}, "scale": 0.5},
    [{"policy": "erss", "k": 0.0, "cooldown": 2}, {"policy": "probe", "layers": [4]}],
]


def test_a_thousand_requests_each_as_alone_and_nothing_left(
    profile: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    asyncio.run(crowd(profile, prompts))


async def crowd(profile: Path, prompts: list[list[int]]) -> None:
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            str(bundled.find("tiny-thinker").folder),
            dtype="float32",
            enforce_eager=True,
            max_model_len=512,
            max_num_seqs=16,
            max_num_batched_tokens=48,
            block_size=32,
            num_gpu_blocks_override=24,
            additional_config={"normprobe": str(profile)},
        )
    )
    rng = random.Random(0)
    drawn = [
        (
            rng.randrange(len(prompts)),
            rng.randrange(len(SETTINGS)),
            rng.choice([2, 6, 12, LONGEST]),
            rng.random() < 0.15,
        )
        for _ in range(REQUESTS)
    ]

    async def ask(name: str, prompt: int, setting: int, length: int, leave: bool) -> Any:
        extra = None if SETTINGS[setting] is None else {"normprobe": SETTINGS[setting]}
        params = SamplingParams(
            temperature=0, max_tokens=length, extra_args=extra, output_kind=RequestOutputKind.CUMULATIVE
        )
        async for output in engine.generate({"prompt_token_ids": prompts[prompt]}, params, name):
            last = output
            if leave and len(output.outputs[0].token_ids) >= 3:
                return None  # closing the stream aborts the request
        return last

    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Any:
        async with room:
            return await ask(f"r{number}", *drawn[number])

    try:
        answers, resident = [], []
        for part in range(PARTS):
            numbers = range(part * REQUESTS // PARTS, (part + 1) * REQUESTS // PARTS)
            answers += await asyncio.gather(*(one(number) for number in numbers))
            # Slots, and policies that nobody holds, go with the worker's next pass.
            for setting in (1, 0):
                await ask(f"last {part} {setting}", 0, setting, 2, leave=False)
            assert await engine.collective_rpc("normprobe_state") == [{"requests": 0, "policies": 0}]
            resident.append(sum(child.memory_info().rss for child in Process().children(recursive=True)))
        assert resident[-1] - resident[-2] < GROWTH, resident
        alone: dict[tuple[int, int], list[int]] = {}
        for (prompt, setting, length, _), answer in zip(drawn, answers, strict=True):
            if answer is None:
                continue
            given = list(answer.outputs[0].token_ids)
            # ERSS draws by the request's name, so only its lengths and results can be compared here.
            if setting != 5:
                if (prompt, setting) not in alone:
                    reference = await ask(f"alone {prompt} {setting}", prompt, setting, LONGEST, leave=False)
                    alone[prompt, setting] = list(reference.outputs[0].token_ids)
                assert given == alone[prompt, setting][:length]
            if setting in (1, 5):
                result = answer.kv_transfer_params["normprobe"]
                assert result["n_tokens"] == len(given)
                assert all(layer["total"] > 0 for layer in result["layers"].values())
            else:
                assert answer.kv_transfer_params is None
        assert sum(answer is None for answer in answers) > 50
    finally:
        engine.shutdown()
