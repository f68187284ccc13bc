"""Policies in a compiled engine: what they do in eager mode, and no cache written by a twin.

On the CPU vLLM compiles one graph with Inductor. The pieces of its own compilation, between which CUDA graphs would
run, it makes on a GPU only; here it is made to, so that the splitting is tested. No graph is captured: in the form
"step" each pass that on a GPU would be a graph of a whole decode step does the work of one (see worker/whole_pass.py).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from serving_fixture import Asked, Engine, unplugged

pytest.importorskip("vllm.version")

from vllm.compilation.counter import compilation_counter
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from normprobe.engines.vllm.configuration import OPERATOR, Configuration
from normprobe.engines.vllm.frontend.engine_setup import prepare
from normprobe.engines.vllm.worker.compiled import CompiledRunnerHooks, TwinRerun
from normprobe.engines.vllm.worker.rerun import BlockRerun
from normprobe.engines.vllm.worker.runner_v1 import RunnerV1
from normprobe.engines.vllm.worker.whole_pass import WholePass
from normprobe.errors import NormprobeError
from normprobe.problems import bundled

OFTEN = {"7": 10.0, "9": 13.0, "10": 13.0}
NEVER = {str(layer): 1e9 for layer in range(12)}
ALRR = {"policy": "alrr", "tau": OFTEN, "growth": -1.0, "blow_up": 4.0}
POLICIES: dict[str, Any] = {
    "nothing": "plain",
    "default": None,
    "recursion": ALRR | {"blow_up": 9.0, "damping": 0.5},
    "deep recursion": ALRR | {"blow_up": 9.0, "max_passes": 3},
    "adaptive recursion, partly where no twin is": {
        "policy": "alrr",
        "layers": [3, 5, 7, 9],
        "k": 0.0,
        "growth": -1.0,
        "blow_up": 9.0,
    },
    "suppression": {"policy": "suppress", "tau": OFTEN, "scale": 0.5},
    "clamp": {"policy": "clamp", "tau": OFTEN},
    "steering at peaks": {"policy": "erss", "k": 0.0, "cooldown": 2, "probability": 0.9, "min_cosine": 0.0},
    "steering, then recursion": [
        {"policy": "erss", "tau": OFTEN, "cooldown": 2, "probability": 0.9, "min_cosine": 0.0},
        ALRR,
    ],
    "together": [ALRR | {"max_passes": 2}, {"policy": "probe", "layers": [9, 10]}],
}


def asked(prompts: list[list[int]], policy: Any, **more: Any) -> dict[str, Asked]:
    return {str(i): Asked(prompt, policy, **more) for i, prompt in enumerate(prompts)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Nothing compiled before is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def configured(profile: Path) -> dict[str, Any]:
    in_graphs = [POLICIES[name] for name in ("suppression", "steering at peaks")]
    return {"normprobe": {"profile": str(profile), "policy": ALRR, "in_graphs": in_graphs}}


@pytest.fixture(scope="module")
def eager(start: Callable[..., Engine], configured: dict[str, Any]) -> Engine:
    return start(bundled.find("tiny-thinker").folder, additional_config=configured)


@pytest.fixture(scope="module")
def whole(start: Callable[..., Engine], configured: dict[str, Any], cache: None) -> Engine:
    """One graph, with Inductor."""
    with compilation_counter.expect(num_aot_compiles=1):
        engine = start(bundled.find("tiny-thinker").folder, additional_config=configured, enforce_eager=False)
    assert engine.worker.vllm_config.compilation_config.mode == CompilationMode.DYNAMO_TRACE_ONCE
    assert list(engine.worker.normprobe._twins) == [7, 9, 10]
    return engine


@pytest.fixture(scope="module")
def pieces(start: Callable[..., Engine], configured: dict[str, Any], cache: None) -> Engine:
    """Graphs that end at attention and at our operator, as on a GPU, but not compiled further."""
    settle = CpuPlatform.check_and_update_config

    def split(config: Any) -> None:
        settle(config)
        config.compilation_config.mode = CompilationMode.VLLM_COMPILE
        config.compilation_config.backend = "eager"
        config.compilation_config.compile_sizes = []

    attentions, operators = 12 + 3, 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(split))
        with compilation_counter.expect(num_piecewise_capturable_graphs_seen=attentions + operators + 1):
            engine = start(
                bundled.find("tiny-thinker").folder, additional_config=configured, enforce_eager=False
            )
    return engine


@pytest.fixture(scope="module")
def step(start: Callable[..., Engine], configured: dict[str, Any], cache: None) -> Engine:
    """One graph, and in decode steps the lasting policies as they are in a CUDA graph of a whole step."""
    engine = start(bundled.find("tiny-thinker").folder, additional_config=configured, enforce_eager=False)
    hooks: CompiledRunnerHooks = engine.worker.normprobe

    class InGraphs(RunnerV1):
        @property
        def whole(self) -> bool:
            layout = self.layout()
            decodes = len(layout.requests) > 0 and bool((layout.start[1:] - layout.start[:-1] == 1).all())
            return decodes and hooks._may_be_whole()

    hooks._watched.__class__ = InGraphs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDAGraphMode, "has_full_cudagraphs", lambda self: True)
        configuration = Configuration.of(engine.worker.vllm_config.additional_config)
        assert configuration is not None
        hooks._graph, hooks._fitting = hooks._whole_steps(configuration.lasting_policies(12))
    assert hooks._fitting == {*configuration.lasting}
    assert len(hooks._fitting) == 3
    return engine


@pytest.fixture(scope="module")
def in_eager_mode(eager: Engine, prompts: list[list[int]]) -> Callable[[str], dict[str, list[int]]]:
    """By name of a policy: the tokens."""
    return functools.cache(
        lambda name: eager.serve(asked(prompts, POLICIES[name], more={"ignore_eos": True}))
    )


@pytest.mark.parametrize("form", ["whole", "pieces", "step"])
@pytest.mark.parametrize("name", POLICIES)
def test_tokens_are_those_of_eager_mode(
    in_eager_mode: Callable[[str], dict[str, list[int]]],
    prompts: list[list[int]],
    request: pytest.FixtureRequest,
    name: str,
    form: str,
) -> None:
    """In batches that hold chunks of prompts, and in which requests are preempted."""
    compiled: Engine = request.getfixturevalue(form)
    done, preempted = compiled.serve_watched(asked(prompts, POLICIES[name], more={"ignore_eos": True}))
    assert done == in_eager_mode(name)
    assert preempted
    assert name == "nothing" or done != in_eager_mode("nothing")


@pytest.mark.parametrize("form", ["whole", "pieces", "step"])
def test_each_request_of_a_mixed_batch_gets_what_it_gets_alone(
    prompts: list[list[int]], request: pytest.FixtureRequest, form: str
) -> None:
    compiled: Engine = request.getfixturevalue(form)
    settings = [*POLICIES.values(), "probe"]
    mixed = {str(i): Asked(prompt, settings[i % len(settings)]) for i, prompt in enumerate(prompts)}
    assert compiled.serve(mixed) == compiled.serve_alone(mixed)


@pytest.mark.parametrize(
    ("names", "in_graphs", "n_layers"),
    [
        (["default"], True, 3),
        (["nothing"], True, 0),
        (["suppression"], True, 3),
        (["default", "suppression", "nothing"], True, 3),
        (["clamp"], False, 3),
        (["default", "clamp"], False, 3),
    ],
)
def test_a_step_is_whole_unless_a_request_asks_for_a_policy_that_is_not_in_graphs(
    step: Engine,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    in_graphs: bool,
    n_layers: int,
) -> None:
    """But for the passes that hold a prompt, which are never whole."""
    in_steps, in_pieces = [], []
    apply, inside = CompiledRunnerHooks._apply, WholePass.apply

    def counted(self: WholePass, site: Any, layer: int, again: Any) -> None:
        in_steps.append(layer)
        inside(self, site, layer, again)

    monkeypatch.setattr(WholePass, "apply", counted)
    monkeypatch.setattr(
        CompiledRunnerHooks,
        "_apply",
        lambda self, site, layer, rerun: (in_pieces.append(layer), apply(self, site, layer, rerun))[1],
    )
    step.serve({name: Asked(prompts[0][:8], POLICIES[name], 8) for name in names})
    assert len(in_steps) == (12 * 7 if in_graphs else 0)
    assert len(in_pieces) == n_layers * (1 if in_graphs else 8)


def test_python_after_a_block_runs_at_the_time_of_tracing_only(
    whole: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, intervene = [], CompiledRunnerHooks.intervene

    def traced(*_: Any) -> None:
        raise AssertionError("the model is not compiled")

    def counted(self: CompiledRunnerHooks, halves: Any, again: Any, arguments: Any, layer: int) -> None:
        asks.append((layer, again is not None))
        intervene(self, halves, again, arguments, layer)

    monkeypatch.setattr(CompiledRunnerHooks, "_change", traced)
    monkeypatch.setattr(CompiledRunnerHooks, "intervene", counted)
    whole.serve({"one": Asked(prompts[0], "plain", 1)})
    assert asks[:12] == [(layer, layer in (7, 9, 10)) for layer in range(12)]


@pytest.mark.parametrize("policy", ["alrr", "suppress", "erss", "probe"])
def test_a_policy_that_never_acts_leaves_every_token_of_plain_vllm_compiled(
    start: Callable[..., Engine], whole: Engine, prompts: list[list[int]], policy: str, plain: Engine
) -> None:
    wanted = plain.serve(asked(prompts, None))
    assert whole.serve(asked(prompts, {"policy": policy, "tau": NEVER})) == wanted


@pytest.fixture(scope="module")
def plain(start: Callable[..., Engine], cache: None) -> Engine:
    """vLLM, compiled, without any of this."""
    engine = start(bundled.find("tiny-thinker").folder, enforce_eager=False)
    assert not hasattr(engine.worker, "normprobe")
    return engine


def test_a_probe_sees_what_it_sees_in_eager_mode(
    eager: Engine, whole: Engine, prompts: list[list[int]]
) -> None:
    results = []
    for engine in (eager, whole):
        for i, prompt in enumerate(prompts):
            engine.add(str(i), Asked(prompt, [ALRR, {"policy": "probe", "layers": [9, 11], "max_tokens": 8}]))
        done = engine.run()
        results.append([done[str(i)].kv_transfer_params["normprobe"] for i in range(len(prompts))])
    for result, wanted in zip(results[1], results[0], strict=True):
        assert result["n_tokens"] == wanted["n_tokens"]
        for layer, values in wanted["layers"].items():
            assert result["layers"][layer]["total"] == pytest.approx(values["total"], rel=1e-5)
            assert result["layers"][layer]["norm"] == pytest.approx(values["norm"], rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("writes", [False, True], ids=["twin", "a twin that writes"])
@pytest.mark.parametrize("form", ["whole", "pieces"])
def test_extra_passes_leave_every_bit_of_the_cache(
    prompts: list[list[int]],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    writes: bool,
) -> None:
    """From the attention of a layer to its operator: the twin is in between. With the control, which must show."""
    compiled: Engine = request.getfixturevalue(form)
    caches, kept = compiled.worker.model_runner.kv_caches, dict[str, list[torch.Tensor]]()
    forward, intervene, twin = (
        CPUAttentionBackendImpl.forward,
        CompiledRunnerHooks.intervene,
        TwinRerun.__call__,
    )
    block, used, again_by_block = BlockRerun.__call__, 0, 0
    same: list[bool] = []

    def attending(self: Any, layer: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        if layer.layer_name not in kept:
            kept[layer.layer_name] = [cache.clone() for cache in caches]
        elif writes:
            layer.impl.do_kv_cache_update(layer, key, value, rest[0], rest[1].slot_mapping)
        return forward(self, layer, query, key, value, *rest, **more)

    def watched(self: CompiledRunnerHooks, halves: Any, again: Any, arguments: Any, layer: int) -> None:
        nonlocal again_by_block
        (name,) = kept
        intervene(self, halves, again, arguments, layer)
        if again is not None and self._rows:
            same.append(
                all(torch.equal(cache, before) for cache, before in zip(caches, kept[name], strict=True))
            )
            for cache, before in zip(caches, kept[name], strict=True):
                cache.copy_(before)
        kept.clear()

    def counted(self: TwinRerun, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        nonlocal used
        used += bool(active.any())
        return twin(self, active, states)

    def counted_block(self: BlockRerun, active: torch.Tensor, states: torch.Tensor) -> torch.Tensor | None:
        nonlocal again_by_block
        out = block(self, active, states)
        again_by_block += out is not None
        return out

    monkeypatch.setattr(CPUAttentionBackendImpl, "forward", attending)
    monkeypatch.setattr(CompiledRunnerHooks, "intervene", watched)
    monkeypatch.setattr(TwinRerun, "__call__", counted)
    monkeypatch.setattr(BlockRerun, "__call__", counted_block)
    compiled.serve(asked(prompts[:4], POLICIES["deep recursion"], max_tokens=10))
    assert used > 20
    assert again_by_block > 5
    assert all(same) is not writes


@pytest.mark.parametrize(
    ("mode", "graphs", "message"),
    [
        (CompilationMode.VLLM_COMPILE, CUDAGraphMode.FULL, "cudagraph_mode FULL_AND_PIECEWISE"),
        (CompilationMode.STOCK_TORCH_COMPILE, CUDAGraphMode.NONE, "enforce_eager=True"),
        (CompilationMode.NONE, CUDAGraphMode.PIECEWISE, "enforce_eager=True"),
    ],
)
def test_modes_that_leave_no_room_for_policies_are_refused(
    mode: CompilationMode, graphs: CUDAGraphMode, message: str
) -> None:
    config = unplugged()
    config.compilation_config.mode, config.compilation_config.cudagraph_mode = mode, graphs
    with pytest.raises(NormprobeError, match=message):
        prepare(config, Configuration())


def test_graphs_of_whole_steps_stay() -> None:
    """vLLM's default on a GPU."""
    compilation = set_up(CUDAGraphMode.FULL_AND_PIECEWISE)
    assert compilation.cudagraph_mode == CUDAGraphMode.FULL_AND_PIECEWISE
    assert compilation.splitting_ops == ["vllm::unified_attention_with_output", OPERATOR]
    assert compilation.mode == CompilationMode.VLLM_COMPILE
    assert set_up(CUDAGraphMode.FULL_DECODE_ONLY).cudagraph_mode == CUDAGraphMode.FULL_DECODE_ONLY


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (CUDAGraphMode.FULL_AND_PIECEWISE, CUDAGraphMode.PIECEWISE),
        (CUDAGraphMode.FULL_DECODE_ONLY, CUDAGraphMode.NONE),
    ],
)
def test_graphs_of_whole_steps_go_where_replicas_would_have_to_agree(
    given: CUDAGraphMode, left: CUDAGraphMode
) -> None:
    with pytest.warns(UserWarning, match=f"2 data-parallel replicas: cudagraph_mode is {left.name} instead"):
        assert set_up(given, is_moe=True, data_parallel_size=2).cudagraph_mode == left
    assert set_up(given, is_moe=False, data_parallel_size=2).cudagraph_mode == given


def set_up(mode: CUDAGraphMode, is_moe: bool = False, data_parallel_size: int = 1) -> Any:
    """The compilation that is configured where vLLM asks for this mode on a GPU."""
    config = unplugged()
    compilation = config.compilation_config
    compilation.mode, compilation.cudagraph_mode = CompilationMode.VLLM_COMPILE, mode
    compilation.splitting_ops = ["vllm::unified_attention_with_output"]
    config.parallel_config.data_parallel_size = data_parallel_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(config.model_config), "is_moe", is_moe)
        prepare(config, Configuration())
    return compilation
