"""A vLLM engine as the tests see it: requests in, tokens out, and what is inside; and models for one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request."""

    prompt: list[int]
    policy: Any = None
    max_tokens: int = 60
    more: dict[str, Any] = field(default_factory=dict)
    adapter: Any = None


@dataclass
class Engine:
    """The engine, and what a test needs to see of its inside."""

    llm: Any

    @property
    def core(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core

    @property
    def worker(self) -> Any:
        return self.core.model_executor.driver_worker.worker

    def add(self, name: str, asked: Asked) -> str:
        """Admit a request under this name; the engine's name for it comes back."""
        from vllm import SamplingParams

        extra = None if asked.policy is None else {"normprobe": asked.policy}
        params = SamplingParams(
            **({"temperature": 0.0, "max_tokens": asked.max_tokens, "extra_args": extra} | asked.more)
        )
        return self.llm.llm_engine.add_request(
            name, {"prompt_token_ids": asked.prompt}, params, lora_request=asked.adapter
        )

    def run(self) -> dict[str, Any]:
        """Until nothing is left: the finished outputs by name."""
        done = {}
        for _ in range(10_000):
            if not self.llm.llm_engine.has_unfinished_requests():
                return done
            done |= {output.request_id: output for output in self.llm.llm_engine.step() if output.finished}
        raise AssertionError("the engine makes no progress")

    def serve(self, asked: Mapping[str, Asked]) -> dict[str, list[int]]:
        """The tokens of requests that are all admitted at once."""
        for name, one in asked.items():
            self.add(name, one)
        return {name: list(output.outputs[0].token_ids) for name, output in self.run().items()}

    def serve_watched(self, asked: Mapping[str, Asked]) -> tuple[dict[str, list[int]], set[str]]:
        """The tokens as `serve` gives them, and the names of the requests that were preempted."""
        done, preempted = {}, set()
        for name, one in asked.items():
            self.add(name, one)
        while self.llm.llm_engine.has_unfinished_requests():
            for output in self.llm.llm_engine.step():
                if output.finished:
                    done[output.request_id] = list(output.outputs[0].token_ids)
            going = self.core.scheduler.requests
            preempted |= {name for name, request in going.items() if request.num_preemptions > 0}
        return done, preempted

    def serve_alone(self, asked: Mapping[str, Asked]) -> dict[str, list[int]]:
        """The tokens of requests that are admitted one after the other."""
        return {name: self.serve({name: one})[name] for name, one in asked.items()}


def unplugged() -> Any:
    """vLLM's configuration of tiny-thinker before it is set up for policies."""
    from vllm.engine.arg_utils import EngineArgs

    from normprobe.engines.vllm.plugin import register
    from normprobe.problems import bundled

    register()
    return EngineArgs(
        str(bundled.find("tiny-thinker").folder), dtype="float32", max_model_len=128
    ).create_engine_config()


def random_checkpoint(family: str, more: Mapping[str, Any], directory: Path) -> None:
    """A random model of four layers over the testbed's vocabulary, whose responses vary.

    family: as Transformers' classes begin. more: settings of its configuration.
    """
    import torch
    import transformers

    from normprobe.models.initialise import initialise
    from normprobe.problems.testbed.tokenizer import build_tokenizer
    from normprobe.problems.testbed.vocabulary import END, PAD, VOCABULARY

    config = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))(
        **{
            "vocab_size": len(VOCABULARY),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": VOCABULARY.index(END),
            "pad_token_id": VOCABULARY.index(PAD),
        }
        | dict(more)
    )
    model = getattr(transformers, family + "ForCausalLM")(config)
    initialise(model, torch.Generator().manual_seed(3))
    model.save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
