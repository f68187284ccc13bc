"""Policies in a compiled forward pass: the same tokens and events as in the uncompiled one, or one clear line.

Run by test_compiled_interventions.py, without the checks of shapes and types at each call: they cannot be compiled.
"""

import warnings
from typing import Any

import pytest
import torch
from parity_models import build
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext
from transformers import CompileConfig, PreTrainedModel, StaticCache

from normprobe.engines.hf import Intervention, intervene
from normprobe.errors import NormprobeError
from normprobe.policies.alrr import ALRR
from normprobe.policies.combined import Combined
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Policy
from normprobe.policies.probe import Probe
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold

LAYERS = (0, 1)
NEW_TOKENS = 8


@pytest.fixture
def architecture() -> str:
    return "qwen3"


@pytest.fixture
def model(architecture: str) -> PreTrainedModel:
    torch.set_num_threads(1)
    torch.compiler.reset()
    return build(architecture, n_layers=3)


IDS = torch.randint(10, 200, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[0, :4] = 0


class Backend:
    """Runs graphs as they are, and counts them. generate() copies its settings, but not a function among them.

    places: per call, the addresses of the inputs that a CUDA graph would not copy, but read where they were.
    """

    def __init__(self) -> None:
        self.graphs = 0
        self.places: set[tuple[int, ...]] = set()

        def run(graph: torch.fx.GraphModule, _inputs: object) -> Any:
            self.graphs += 1
            given = graph.graph.find_nodes(op="placeholder")
            static = ["_dynamo_static_input_type" in node.meta.get("tensor_dict", {}) for node in given]

            def call(*inputs: Any) -> Any:
                self.places.add(tuple(x.data_ptr() for x, stays in zip(inputs, static, strict=True) if stays))
                return graph(*inputs)

            return call

        self.run = run


def written(model: PreTrainedModel, backend: Backend | None = None, **options: Any) -> list[list[int]]:
    """Tokens with a static cache, compiled by the backend if there is one."""
    if backend is not None:
        # Nothing of a graph may be guessed: a graph break is an error, although the caller does not say so.
        config = CompileConfig(fullgraph=False, backend=backend.run, mode=None)
        config._compile_all_devices = True
        options["compile_config"] = config
    generate: Any = model.generate
    how = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "cache_implementation": "static"} | options
    return generate(IDS, attention_mask=MASK, **how)[:, IDS.shape[1] :].tolist()


def middle(model: PreTrainedModel) -> FixedThreshold:
    """τ that about half of the norms are above."""
    probe = Probe(FixedThreshold(dict.fromkeys(LAYERS, 1e6)), max_tokens=NEW_TOKENS)
    with intervene(model, probe, quiet=True) as intervention:
        written(model)
    norm = summary(intervention).norm
    return FixedThreshold({layer: float(norm[:, i].nanmedian()) for i, layer in enumerate(LAYERS)})


def summary(intervention: Intervention) -> Any:
    running: Any = intervention.running
    return running.summary(range(len(IDS)))


def policies(tau: FixedThreshold) -> dict[str, Policy]:
    recursion = ALRR(tau, blow_up=50.0, growth=-0.9, max_passes=2, damping=0.75)
    return {
        "alrr": recursion,
        "erss": ERSS(tau, probability=1.0, cooldown=1, min_cosine=-1.0, beta=0.9, bank_size=3),
        "suppression": Suppression(FixedThreshold(dict(tau.tau))),
        "alrr and probe": Combined((recursion, Probe(tau, max_tokens=3))),
    }


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("qwen3", "alrr"),
        ("qwen3", "erss"),
        ("qwen3", "alrr and probe"),
        ("gemma2", "alrr"),  # with sliding windows
    ],
)
def test_compiled_equals_uncompiled_in_one_graph(model: PreTrainedModel, name: str) -> None:
    policy = policies(middle(model))[name]
    bare = Backend()
    plain = [
        written(model, bare),
        written(model, bare),
    ]  # leaves a compiled forward pass without hooks behind
    with intervene(model, policy, always_on=True, record=True) as uncompiled:
        expected = [written(model), written(model)]
    backend = Backend()
    with intervene(model, policy, always_on=True, record=True) as compiled:
        got = [written(model, backend), written(model, backend)]
    assert got == expected
    ours, theirs = compiled.events(), uncompiled.events()
    for field in ("request", "step", "layer", "passes"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field))
    torch.testing.assert_close(ours.delta, theirs.delta)
    assert len(ours.step) > 0
    assert ours.step.max() > 0
    assert backend.graphs == bare.graphs  # neither a step nor another batch makes a new one
    assert len(backend.places) == 2  # all stays from step to step; each batch has its own
    assert [written(model, bare), written(model)] == plain


@pytest.mark.parametrize("name", ["alrr", "erss", "probe", "suppression"])
def test_what_a_pass_changes_stays_where_it_is(model: PreTrainedModel, name: str) -> None:
    """Inductor records no CUDA graph of a pass that changes a tensor whose place may change."""
    even = (1 / BINS,) * BINS
    adaptive = AdaptiveThreshold(LAYERS, (0.1, 0.1), (1e3, 1e3), (even, even))
    policy = {"alrr": ALRR, "erss": ERSS, "probe": Probe, "suppression": Suppression}[name](adaptive)
    changed = []

    def look(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        inputs = TracingContext.get().fw_metadata
        assert inputs is not None
        changes = [at for at, info in enumerate(inputs.input_info) if info.mutates_data]
        changed.append((set(changes), set(inputs.static_input_indices)))
        return graph.forward

    backend = Backend()
    backend.run = aot_autograd(fw_compiler=look)
    with intervene(model, policy, always_on=True, quiet=True):
        written(model, backend)
    ((changes, static),) = changed
    assert len(changes) > 6  # keys, values and length of three layers, and the policy's own
    assert changes <= static


def test_what_the_probe_saw_is_the_same(model: PreTrainedModel) -> None:
    probe = Probe(middle(model), max_tokens=NEW_TOKENS)
    seen = []
    for backend in (None, Backend()):
        with intervene(model, probe, always_on=True, quiet=True) as intervention:
            written(model, backend)
        seen.append(summary(intervention))
    torch.testing.assert_close(seen[1].norm, seen[0].norm, equal_nan=True)
    assert seen[0].n_tokens.tolist() == seen[1].n_tokens.tolist()
    assert min(seen[0].n_tokens.tolist()) > 1


def test_an_intervention_has_no_graph_of_another(model: PreTrainedModel) -> None:
    tau = middle(model)
    backend = Backend()
    for scale in (0.1, 0.5):
        policy = Suppression(FixedThreshold(dict(tau.tau)), scale=scale)
        with intervene(model, policy):
            expected = written(model, disable_compile=True)
        with intervene(model, policy, always_on=True):
            assert written(model, backend) == expected


def test_compaction_refuses_a_compiled_pass_before_any_token(model: PreTrainedModel) -> None:
    policy = policies(middle(model))["alrr"]
    backend = Backend()
    with (
        pytest.raises(NormprobeError, match=r"expected a forward pass that is not compiled.*always_on=True"),
        intervene(model, policy) as intervention,
    ):
        written(model, backend)
    assert (backend.graphs, intervention.running) == (0, None)
    assert "get_compiled_call" not in vars(model)


def test_a_graph_that_lacks_the_hooks_is_an_error(model: PreTrainedModel) -> None:
    """A user compiles the model, runs it, and then intervenes: the graph would go on without the policy."""
    decoder: Any = model.get_decoder()
    uncompiled = decoder.forward
    decoder.forward = torch.compile(uncompiled, backend="eager")
    ids = IDS[1:2]
    generate: Any = model.generate
    how = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "cache_implementation": "static"}
    try:
        generate(ids, **how)
        with (
            pytest.raises(
                NormprobeError, match=r"expected each pass to run layers \[0, 1\] under the policy"
            ),
            intervene(model, Suppression(FixedThreshold(dict.fromkeys(LAYERS, 1e-6)))),
        ):
            generate(ids, **how)
    finally:
        decoder.forward = uncompiled


@torch.no_grad()
def test_a_cache_too_short_for_the_response_is_refused_before_it_overflows(model: PreTrainedModel) -> None:
    room = IDS.shape[1] + 3
    policy = Suppression(FixedThreshold({1: 1e-6}))
    for tokens, fits in ((4, True), (5, False)):  # the last token is never written to the cache
        cache = StaticCache(config=model.config, max_cache_len=room)
        generate: Any = model.generate
        how = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        with intervene(model, policy), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers 5.24 calls the argument `cache`
            if fits:
                assert generate(IDS, past_key_values=cache, **how).shape[1] == room + 1
            else:
                with pytest.raises(NormprobeError, match=f"at most {room} tokens, the length of the static"):
                    generate(IDS, past_key_values=cache, **how)
