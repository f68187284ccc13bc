"""What the benchmark of vLLM serves: a model on disk, prompts and a layer profile; and an engine in this process."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import vllm
from workload import SHAPES, make_workload, measure_profile

from normprobe.problems.testbed import bundled


@dataclass(frozen=True)
class Prepared:
    """Files that engines start from, and prompts. tau: for a quarter of the layers, up to the last but one, the norm
    that a tenth of their tokens exceed."""

    model: Path
    profile: Path
    prompts: list[list[int]]
    tau: dict[int, float]


def prepare(name: str, batch: int, new_tokens: int, folder: Path) -> Prepared:
    """The model on disk, and the layer profile of its own plain generation, both in the folder if need be."""
    workload = make_workload(name, "cpu", "float32", batch, new_tokens)
    profile, norm = measure_profile(workload)
    config, n_layers = workload.model.config, workload.n_layers
    shape = {"n_layers": n_layers, "d_model": config.hidden_size, "vocab": config.vocab_size}
    replace(profile, model=shape).save(folder / "layer_profile.json")
    model = folder
    if name in SHAPES:
        workload.model.save_pretrained(folder)
    else:
        model = bundled.path(name)
    prompts = [
        [token for token, kept in zip(ids, mask, strict=True) if kept]
        for ids, mask in zip(workload.ids.tolist(), workload.mask.tolist(), strict=True)
    ]
    quarter = range(n_layers - 1 - n_layers // 4, n_layers - 1)
    tau = {layer: float(np.quantile(norm[layer], 0.9)) for layer in quarter}
    return Prepared(model, folder / "layer_profile.json", prompts, tau)


@dataclass(frozen=True)
class Served:
    """An engine in this process and its prompts; each request writes `new_tokens` tokens."""

    llm: Any
    prompts: list[list[int]]
    new_tokens: int

    def steps(self, policy: Any = None, n: int | None = None) -> Generator[None, None, list[list[int]]]:
        """Serve the (first n) prompts, one step of the engine at a time; the tokens come with the end."""
        engine = self.llm.llm_engine
        params = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=self.new_tokens,
            ignore_eos=True,
            detokenize=False,
            extra_args=None if policy is None else {"normprobe": policy},
        )
        names = [str(number) for number, _ in enumerate(self.prompts[:n])]
        for name, prompt in zip(names, self.prompts, strict=False):
            engine.add_request(name, {"prompt_token_ids": prompt}, params.clone())
        done: dict[str, list[int]] = {}
        while engine.has_unfinished_requests():
            done |= {
                output.request_id: list(output.outputs[0].token_ids)
                for output in engine.step()
                if output.finished
            }
            yield
        return [done[name] for name in names]

    def generate(self, policy: Any = None, n: int | None = None) -> list[list[int]]:
        """All steps at once."""
        run = self.steps(policy, n)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value

    @property
    def runner(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
