"""One real vLLM engine on tiny-thinker, on the CPU and in this process, made so that everything awkward happens.

Few tokens per pass (prompts come in chunks, mixed with decoding) and few cache blocks (large batches are preempted).
`make test-vllm` runs these tests in an environment of their own; elsewhere they skip.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving_fixture import Asked, Engine

from normprobe.problems import bundled

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else two ranks ask for two NUMA nodes
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
BLOCKS, BLOCK, TOKENS_PER_PASS, SEQUENCES = 24, 32, 48, 16


@pytest.fixture(scope="session")
def opened() -> "OpenModel":
    """tiny-thinker in Transformers: the reference."""
    from normprobe.models.open import open_model

    return open_model("tiny-thinker", check=False)


@pytest.fixture(scope="session")
def prompts(opened: "OpenModel") -> list[list[int]]:
    """Prompts of many lengths."""
    from normprobe.problems.testbed.problems import make_problems

    return [opened.chat.prompt_ids(problem.question, "think") for problem in make_problems(12, 0)]


@pytest.fixture(scope="session")
def profile(opened: "OpenModel", prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer profile of what tiny-thinker says to the prompts."""
    import numpy as np
    import pandas as pd
    import torch

    from normprobe.engines.hf.decode import decode
    from normprobe.layer_profile import LayerProfile
    from normprobe.models.sites import record_sites

    norm, rows = [], []
    for number, (prompt, response) in enumerate(zip(prompts, decode(opened, prompts, 60), strict=True)):
        with record_sites(opened) as sites, torch.no_grad():
            opened.model(torch.tensor([prompt + response]))
            norm.append(np.stack([state[0, len(prompt) - 1 :].norm(dim=1).numpy() for state in sites.states]))
        rows += [(str(number), "think", "select", "thought", False)] * (len(response) + 1)
    tokens = pd.DataFrame(rows, columns=["problem_id", "mode", "split", "segment", "sink"])
    path = tmp_path_factory.mktemp("profile") / "layer_profile.json"
    LayerProfile.measure(tokens, np.concatenate(norm, axis=1), opened.identity.to_dict()).save(path)
    return path


@pytest.fixture(scope="session")
def start() -> Callable[..., Engine]:
    """`start(directory, **options)`: an engine in this process. All live to the end of the session: the first to be
    collected would take the process groups of the others with it."""
    from vllm import LLM

    engines: list[Engine] = []

    def started(directory: Path, **options: Any) -> Engine:
        given = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 256,
            "max_num_seqs": SEQUENCES,
            "max_num_batched_tokens": TOKENS_PER_PASS,
            "block_size": BLOCK,
            "num_gpu_blocks_override": BLOCKS,
        }
        engines.append(Engine(LLM(str(directory), **given | options)))
        # In test_runner_v2.py, where V1 would pass, too.
        if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1":
            from vllm.v1.worker.gpu.model_runner import GPUModelRunner

            assert isinstance(engines[-1].worker.model_runner, GPUModelRunner)
        return engines[-1]

    return started


@pytest.fixture(scope="session")
def engine(start: Callable[..., Engine], profile: Path) -> Engine:
    """tiny-thinker under policies, requests plain by default."""
    return start(bundled.find("tiny-thinker").folder, additional_config={"normprobe": str(profile)})


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test on the engine: no slot is taken, no settings but the default's are kept for long."""
    yield
    if "engine" in request.fixturenames:
        engine: Engine = request.getfixturevalue("engine")
        engine.run()
        engine.serve(
            {"last": Asked([5, 9, 30, 40], None, 1)}
        )  # the worker learns who finished with its next pass
        slots = engine.worker.normprobe.slots
        assert slots.active == {}
        assert sorted(slots._free) == list(range(SEQUENCES))
