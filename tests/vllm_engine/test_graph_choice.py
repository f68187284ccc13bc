"""vLLM's own choice of a CUDA graph, with its settings for a GPU: the whole step unless the hooks say no, then pieces.

Nothing is captured. The runners are stubs around vLLM's real choosers, since a runner with graphs needs a GPU.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from serving_fixture import unplugged

pytest.importorskip("vllm.version")

from vllm.config import CompilationMode, CUDAGraphMode
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

from normprobe.engines.vllm.worker.runner_v1 import RunnerV1
from normprobe.engines.vllm.worker.runner_v2 import RunnerV2

FULL, PIECEWISE, NONE = CUDAGraphMode.FULL, CUDAGraphMode.PIECEWISE, CUDAGraphMode.NONE


def for_a_gpu(mode: CUDAGraphMode) -> Any:
    config = unplugged()
    compilation = config.compilation_config
    compilation.mode, compilation.cudagraph_mode = CompilationMode.VLLM_COMPILE, mode
    compilation.splitting_ops = list(compilation._attention_ops)
    compilation.cudagraph_capture_sizes, compilation.max_cudagraph_capture_size = [1, 2, 4, 8], 8
    return config


def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize("may", [True, False])
@pytest.mark.parametrize(
    ("mode", "otherwise"),
    [(CUDAGraphMode.FULL_AND_PIECEWISE, PIECEWISE), (CUDAGraphMode.FULL_DECODE_ONLY, NONE)],
)
def test_v1_takes_the_graph_of_a_whole_step_only_where_it_may(
    mode: CUDAGraphMode, otherwise: CUDAGraphMode, may: bool
) -> None:
    config = for_a_gpu(mode)
    dispatcher = CudagraphDispatcher(config)
    dispatcher.initialize_cudagraph_keys(mode, 1)
    runner = SimpleNamespace(_update_states=nothing, _model_forward=nothing, cudagraph_dispatcher=dispatcher)
    RunnerV1(runner).watch(nothing, nothing, nothing, lambda: may)
    chosen, padded = dispatcher.dispatch(num_tokens=3, uniform_decode=True)
    assert chosen == (FULL if may else otherwise)
    assert padded.num_tokens == (3 if chosen == NONE else 4)
    assert dispatcher.dispatch(num_tokens=3, uniform_decode=False)[0] == otherwise
    agreed = dispatcher.dispatch(num_tokens=3, uniform_decode=True, valid_modes={FULL})
    assert agreed[0] == FULL, "what the ranks have agreed on is not changed by one of them"


@pytest.mark.parametrize("may", [True, False])
def test_v2_takes_the_graph_of_a_whole_step_only_where_it_may(
    monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    pytest.importorskip("triton")
    from vllm.v1.worker.gpu import cudagraph_utils

    alone = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    monkeypatch.setattr(cudagraph_utils, "get_pp_group", lambda: alone)
    monkeypatch.setattr(type(cudagraph_utils.current_platform), "get_global_graph_pool", nothing)
    mode = CUDAGraphMode.FULL_AND_PIECEWISE
    manager = cudagraph_utils.CudaGraphManager(for_a_gpu(mode), None, mode, 1)
    manager._graphs_captured = True
    asked: dict[str, tuple[int, int, int | None]] = {"tokens": (3, 3, 1)}

    def execute_model() -> Any:
        return manager.dispatch(*asked["tokens"], 0), watched.whole

    runner = SimpleNamespace(
        finish_requests=nothing,
        model_state=SimpleNamespace(preprocess_state=nothing),
        execute_model=execute_model,
        cudagraph_manager=manager,
    )
    watched = RunnerV2(runner)
    watched.watch(nothing, nothing, nothing, lambda: may)
    chosen, whole = runner.execute_model()
    assert (chosen.cg_mode, chosen.num_tokens) == ((FULL if may else PIECEWISE), 4)
    assert whole is may
    asked["tokens"] = (2, 3, None)  # two requests with three tokens
    chosen, whole = runner.execute_model()
    assert chosen.cg_mode == PIECEWISE
    assert not whole
