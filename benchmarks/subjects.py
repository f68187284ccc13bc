"""What is measured: a model, prompts, and a clock; and the layer profile of the model's own plain generation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from normprobe.engines.hf import intervene
from normprobe.layer_profile import LayerProfile
from normprobe.models.initialise import initialise
from normprobe.models.open import DTYPES, open_model
from normprobe.policies.probe import Probe
from normprobe.policies.threshold import FixedThreshold
from normprobe.problems.testbed.problems import make_problems

SHAPES = {
    # hidden_size, intermediate_size, layers, attention heads, tied embeddings: the published config.json
    "qwen3-0.6b": (1024, 3072, 28, 16, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, True),
    "qwen3-8b": (4096, 12288, 36, 32, False),
}
PROMPT_TOKENS = 64


@dataclass(frozen=True)
class Subject:
    """A model and as many prompts as the batch holds, padded on the left; everything on the model's device."""

    model: PreTrainedModel
    ids: torch.Tensor
    mask: torch.Tensor
    new_tokens: int

    def generate(self, n: int | None = None) -> torch.Tensor:
        """The tokens after the first n prompts, greedy and always `new_tokens` of them."""
        inputs: dict[str, Any] = {"input_ids": self.ids[:n], "attention_mask": self.mask[:n]}
        lengths = {"min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}
        generate: Any = self.model.generate  # a decorator hides that it can be called
        written = generate(**inputs, **lengths, do_sample=False)
        assert isinstance(written, torch.Tensor)
        return written[:, self.ids.shape[1] :]

    @property
    def n_layers(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    def clock(self) -> float:
        """Seconds: see the top of this file."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
            return time.perf_counter()
        return time.process_time()


def make_subject(name: str, device: str, dtype: str, batch: int, new_tokens: int) -> Subject:
    """tiny-thinker on its own problems, or random weights of a published shape on random tokens."""
    if name not in SHAPES:
        opened = open_model(name, device=device, dtype=dtype, check=False)
        problems = make_problems(batch, 0)[:batch]
        prompts = [opened.chat.prompt_ids(problem.question, "think") for problem in problems]
        longest = max(map(len, prompts))
        rows = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return Subject(opened.model, torch.tensor(rows).to(device), torch.tensor(mask).to(device), new_tokens)
    width, inner, layers, heads, tied = SHAPES[name]
    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
        dtype=DTYPES[dtype],
    )
    with torch.device(device):
        model: Any = Qwen3ForCausalLM(config).eval()
        model.to(DTYPES[dtype])
        ids = torch.randint(config.vocab_size, (batch, PROMPT_TOKENS))
    with torch.no_grad():
        initialise(model, torch.Generator(device).manual_seed(0))
    return Subject(model, ids, torch.ones_like(ids), new_tokens)


def measure_profile(subject: Subject) -> tuple[LayerProfile, np.ndarray]:
    """A layer profile of the subject's own plain generation, and the norms [layer, token] that it was made from."""
    everywhere = FixedThreshold(dict.fromkeys(range(subject.n_layers), float("inf")))
    probe = Probe(everywhere, max_tokens=subject.new_tokens)
    with intervene(subject.model, probe, quiet=True) as intervention:
        subject.generate()
    assert intervention.running is not None
    kept = intervention.running.summary(range(len(subject.ids)))  # type: ignore[attr-defined]
    norm = kept.norm.transpose(0, 1).flatten(1).numpy()
    tokens = pd.DataFrame({"problem_id": range(norm.shape[1])}).assign(
        split="select", mode="think", segment="thought", sink=False
    )
    return LayerProfile.measure(tokens, norm, {"n_layers": subject.n_layers}), norm
