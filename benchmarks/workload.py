"""What a benchmark generates with: a model, prompts, and a clock; and the layer profile of its own plain generation."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from reporting import parser
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    LlamaConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from normprobe.engines.hf import intervene
from normprobe.layer_profile import LayerProfile
from normprobe.models.initialise import initialise
from normprobe.models.open import DTYPES, open_model
from normprobe.policies.probe import Probe
from normprobe.policies.threshold import FixedThreshold
from normprobe.problems.testbed.problems import make_problems


def _qwen3(width: int, inner: int, layers: int, heads: int, **settings: Any) -> Callable[..., Qwen3Config]:
    shape = {
        "vocab_size": 151936,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
    return partial(Qwen3Config, **shape | settings)


SHAPES: Mapping[str, Callable[..., PreTrainedConfig]] = {
    "qwen3-0.6b": _qwen3(1024, 3072, 28, 16),
    "qwen3-1.7b": _qwen3(2048, 6144, 28, 16),
    "qwen3-8b": _qwen3(4096, 12288, 36, 32, tie_word_embeddings=False),
    "smollm2-135m": partial(
        LlamaConfig,
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "qwen3-toy": _qwen3(32, 48, 4, 8, vocab_size=256, head_dim=8),  # ours, for tests
}
"""Published shapes (the config.json of each), whose weights are drawn at random."""
SMALLEST = "smollm2-135m"
"""Of the shapes that people run: what a step costs in Python weighs less there than in tiny-thinker."""
PROMPT_TOKENS = 64
SETTLING_STEPS = 4
"""Steps that `decode_seconds` leaves out: the prompt, and a CUDA graph that is recorded again for a new cache."""


@dataclass(frozen=True)
class Workload:
    """A model and as many prompts as the batch holds, padded on the left; everything on the model's device.

    options: further arguments of the model's generate().
    """

    model: PreTrainedModel
    ids: torch.Tensor
    mask: torch.Tensor
    new_tokens: int
    options: dict[str, Any] = field(default_factory=dict)

    def first(self, n: int) -> Workload:
        """The same with the first n prompts."""
        start = int(self.mask[:n].any(dim=0).int().argmax())
        return replace(self, ids=self.ids[:n, start:], mask=self.mask[:n, start:])

    def generate(self, **options: Any) -> torch.Tensor:
        """The tokens after each prompt, greedy and always `new_tokens` of them."""
        inputs: dict[str, Any] = {"input_ids": self.ids, "attention_mask": self.mask}
        lengths = {"min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}
        generate: Any = self.model.generate  # a decorator hides that it can be called
        written = generate(**inputs, **lengths, **self.options, **options, do_sample=False)
        assert isinstance(written, torch.Tensor)
        return written[:, self.ids.shape[1] :]

    def decode_seconds(self) -> tuple[float, torch.Tensor]:
        """Seconds that the steps after the first `SETTLING_STEPS` take, and the tokens of all steps."""
        stopwatch = _Stopwatch(self)
        written = self.generate(logits_processor=LogitsProcessorList([stopwatch]))
        return self.clock() - stopwatch.begun, written

    def compiled(self) -> Workload:
        """The same with a static cache, for which generate() compiles its passes into CUDA graphs. It does so on CUDA
        only; elsewhere it is made to take the graph, which then runs as it is."""
        options: dict[str, Any] = {"cache_implementation": "static"}
        if self.model.device.type != "cuda":
            config: Any = CompileConfig(backend="eager")
            config.mode, config._compile_all_devices = None, True
            options["compile_config"] = config
        return replace(self, options=options)

    @property
    def n_layers(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    def clock(self) -> float:
        return clock(self.model.device)


def clock(device: torch.device) -> float:
    """Wall time between synchronisations on CUDA, the process's own CPU time on a CPU; in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def block_seconds(
    blocks: Iterable[nn.Module],
    generate: Callable[[], object],
    device: torch.device,
    counts: Callable[[Any], bool] = lambda output: True,
) -> float:
    """Median time of one of these blocks in plain generation, over the calls whose output `counts`."""
    begun, taken = [0.0], []

    def before(*_: object) -> None:
        begun[0] = clock(device)

    def after(_block: object, _args: object, output: Any) -> None:
        if counts(output):
            taken.append(clock(device) - begun[0])

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(before).remove)
            hooks.callback(block.register_forward_hook(after).remove)
        for _ in range(3):
            generate()
    return float(np.median(taken))


class _Stopwatch(LogitsProcessor):
    """Leaves the logits alone and reads the clock once the steps have settled."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.steps = 0
        self.begun = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == SETTLING_STEPS:
            self.begun = self.workload.clock()
        return scores


def make_workload(
    name: str, device: str, dtype: str, batch: int, new_tokens: int, n_layers: int | None = None
) -> Workload:
    """tiny-thinker on its own problems, or random weights of a published shape on random tokens.

    n_layers: so many layers of that shape (by default as many as were published).
    """
    if name not in SHAPES:
        opened = open_model(name, device=device, dtype=dtype, check=False)
        problems = make_problems(batch, 0)[:batch]
        prompts = [opened.chat.prompt_ids(problem.question, "think") for problem in problems]
        rows = [torch.tensor(prompt, device=device) for prompt in prompts]
        ids, mask = (
            pad_sequence(values, batch_first=True, padding_side="left")
            for values in (rows, [torch.ones_like(row) for row in rows])
        )
        return Workload(opened.model, ids, mask, new_tokens)
    layers = {} if n_layers is None else {"num_hidden_layers": n_layers}
    config = SHAPES[name](dtype=DTYPES[dtype], **layers)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config).eval()
        model.to(DTYPES[dtype])
        generator = torch.Generator(device).manual_seed(0)
        initialise(model, generator)
        ids = torch.randint(config.vocab_size, (batch, PROMPT_TOKENS), generator=generator)
    return Workload(model, ids, torch.ones_like(ids), new_tokens)


def treatments(tau: Mapping[int, float]) -> dict[str, Any]:
    """The policies by treatment, as `normprobe.policies.spec` describes them. alrr_0 compares every norm with an
    adaptive τ that is out of reach. alrr_10 tries an extra pass at a tenth of the rows (those above `tau`, by layer)
    and throws each of them away, so that the share stays a tenth."""
    given = {str(layer): value for layer, value in tau.items()}
    return {
        "probe": "probe",
        "alrr_0": {"policy": "alrr", "k": 1e6},
        "erss": "erss",
        "alrr_10": {"policy": "alrr", "tau": given, "blow_up": 1e6, "growth": 1e6},
    }


def workload_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options of a benchmark of generation. rounds: by default."""
    options = parser(description)
    options.add_argument("--model", default="tiny-thinker", choices=["tiny-thinker", *SHAPES])
    options.add_argument("--rounds", type=int, default=rounds)
    options.add_argument("--new-tokens", type=int, default=64)
    options.add_argument("--seed", type=int, default=0)
    return options


def measure_profile(workload: Workload) -> tuple[LayerProfile, np.ndarray]:
    """A layer profile of the workload's own plain generation, and the norms [layer, token] that it was made from."""
    everywhere = FixedThreshold(dict.fromkeys(range(workload.n_layers), float("inf")))
    probe = Probe(everywhere, max_tokens=workload.new_tokens)
    with intervene(workload.model, probe, quiet=True) as intervention:
        workload.generate()
    assert intervention.running is not None
    summary = intervention.running.summary(range(len(workload.ids)))
    assert summary is not None
    norm = summary.norm.transpose(0, 1).flatten(1).numpy()
    tokens = pd.DataFrame({"problem_id": range(norm.shape[1])}).assign(
        split="select", mode="think", segment="thought", sink=False
    )
    return LayerProfile.measure(tokens, norm, {"n_layers": workload.n_layers}), norm
