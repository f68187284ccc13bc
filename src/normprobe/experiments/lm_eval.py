"""lm-evaluation-harness with policies: `--model normprobe`, and a command line that knows it and the task pack.

    python -m normprobe.experiments.lm_eval --model normprobe \
        --model_args pretrained=tiny-thinker,policy=alrr,profile=runs/tiny-thinker/layer_profile.json \
        --tasks normprobe_testbed --apply_chat_template --batch_size 64

The command `lm_eval` looks models up in a registry that only its own process fills (0.4.13 reads no entry points), so
`main` registers the model, adds the task pack, and hands over to it; all its other models and tasks stay available.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Never

import torch

from normprobe.console import run_main, shows_bars
from normprobe.engines.base import Draws, Engine, UntriggeredWarning
from normprobe.engines.engine_choice import engine_of
from normprobe.errors import NormprobeError
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.experiments.samples import sample_key
from normprobe.layer_profile import LayerProfile
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.models.open import open_for, use_one_thread_if_tiny
from normprobe.policies.spec import Spec, build

try:
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import setup_logging

    from normprobe.experiments.lm_eval_requests import Written, generation_settings
except ImportError as cause:
    raise NormprobeError(
        f"expected lm-eval ≥ 0.4.13, got none that works ({cause}); pip install 'normprobe[lm-eval]'"
    ) from cause

MODES = ("think", "no_think")
BATCH = 64
"""Responses at once under `--batch_size auto`."""
_log = logging.getLogger("lm_eval.normprobe")  # below lm-eval's own, so that its settings show it


@register_model("normprobe")
class NormprobeLM(LM):
    """A thinking model that generates under a policy, on an engine of normprobe.

    pretrained: as `open_model` takes it: "tiny-thinker", a directory or a hub id.
    policy: a name, or a mapping with settings (see `normprobe.policies.spec`); None: the plain model. On the command
        line a mapping needs all of --model_args as JSON: '{"pretrained": …, "policy": {"policy": "alrr", "k": 2}}'.
    profile: path of the layer profile that the policy takes its thresholds from.
    mode: "think" or "no_think". A response is what follows the thought; a thought that never closed has none. Strings
        that end a response (`until`) are looked for in what follows the thought.
    device: where there is no CUDA, a CUDA device (lm-eval's default) means the CPU, as for `hf`.
    max_length: tokens of prompt and response together; by default the model's own limit. max_gen_toks: of a response
        where the task names no limit.
    revision, dtype, trust_remote_code: as `open_model` takes them. seed: of sampled tokens.
    engine: "hf", or "vllm", which stays open until `close`, over so many devices (tensor_parallel_size).
    thinking_format, think_start, think_end, system_prompt, chat_template_kwargs: as on the command line of
        `normprobe verify` (`ThinkingSettings`).

    temperature: of all responses; None, as at first: what each task asks for.
    sample: the number of the sample that a call draws, 0 at first.
    acted, written: of the latest call, by layer the states that the policy acted on, and the responses.

    Random draws are keyed by the tokens of the prompt, how often it came before, and `sample`: no response depends on
    the batch it was written in, and all policies share the numbers that tokens are drawn with.
    Raises NormprobeError for arguments it does not know, and whatever `open_model`, the policy and the profile refuse.
    """

    def __init__(
        self,
        pretrained: str,
        policy: Spec | None = None,
        profile: str | None = None,
        mode: str = "think",
        *,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        offline: bool = False,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        engine: str = "hf",
        tensor_parallel_size: int = 1,
        thinking_format: str | None = None,
        think_start: str | None = None,
        think_end: str | None = None,
        system_prompt: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **unknown: object,
    ) -> None:
        if unknown:
            raise NormprobeError(
                "expected model_args among pretrained, policy, profile, mode, revision, dtype, offline, "
                "trust_remote_code, max_length, max_gen_toks, seed, engine, tensor_parallel_size, thinking_format, "
                "think_start, think_end, system_prompt and chat_template_kwargs, got "
                f"{', '.join(unknown)}; correct the names"
            )
        if mode not in MODES:
            raise NormprobeError(f"expected a mode of {', '.join(MODES)}, got {mode!r}; choose one of these")
        if profile is not None and policy is None:
            raise NormprobeError(
                "expected a policy with the profile, got none; name one, such as policy=alrr"
            )
        super().__init__()
        if device.startswith("cuda") and not torch.cuda.is_available():
            device = "cpu"
        if isinstance(chat_template_kwargs, Mapping):
            chat_template_kwargs = json.dumps(chat_template_kwargs)
        thinking = ThinkingSettings(
            thinking_format, think_start, think_end, system_prompt, chat_template_kwargs
        )
        asked: dict[str, Any] = {"dtype": dtype, "engine": engine}
        for name, value in asked.items():
            ModelSettings.check(name, value)
        settings = ModelSettings(
            pretrained,
            revision=revision,
            device=device,
            offline=offline,
            trust_remote_code=trust_remote_code,
            tensor_parallel_size=tensor_parallel_size,
            **asked,
        )
        settings.check_engine()
        opened = open_for(settings, thinking)
        use_one_thread_if_tiny(opened)
        measured = None if profile is None else LayerProfile.load(Path(profile))
        if measured is not None:
            measured.for_model(opened.identity.to_dict())
        self._open = ExitStack()
        self.engine: Engine = self._open.enter_context(engine_of(opened, settings))
        self.opened = opened
        self.tokenizer, self.mode, self.seed = opened.tokenizer, mode, seed
        self.policy = None if policy is None else build(policy, measured)
        self.temperature: float | None = None
        self.sample = 0
        self.acted: Counter[int] = Counter()
        self.written: list[Written] = []
        self._room, self._default = max_length or self.engine.context or sys.maxsize, max_gen_toks
        adaptive = str(batch_size).startswith("auto")
        self._batch_size = max_batch_size or BATCH if adaptive else int(batch_size)

    def close(self) -> None:
        """End the engine."""
        self._open.close()

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache of requests is called after: not the model's name, its tokenizer and chat template."""
        return f"{self.engine.identity.tokenizer[:16]}-{self.engine.identity.chat_template[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's chat template, if lm-eval is to apply one."""
        return str(self.tokenizer.chat_template) if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt in this mode, also where the template has no switch for it (see `normprobe.models.chat`)."""
        if add_generation_prompt:
            return self.engine.chat.prompt_text(chat_history, self.mode)
        return str(
            self.tokenizer.apply_chat_template(chat_history, tokenize=False, continue_final_message=True)
        )

    def tok_encode(self, text: str) -> list[int]:
        """Token ids of a text that the chat template has given its special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers, in order. Logs what the policy did, and how many thoughts never closed.

        Raises NormprobeError for prompts outside the chat template or longer than the model's context, and for
        settings of generation that no engine knows. Warns (UntriggeredWarning) if the policy never acted.
        """
        _, _, ending = self.apply_chat_template([{"role": "user", "content": "?"}]).rpartition("?")
        if bare := next((request.args[0] for request in requests if ending not in request.args[0]), None):
            raise NormprobeError(
                f"expected prompts in the model's chat template, got one that ends in {bare[-40:]!r}; "
                "add --apply_chat_template, and leave out tasks that begin the answer themselves"
            )
        prompts = [self.tok_encode(request.args[0]) for request in requests]
        alike: defaultdict[tuple[int, float, tuple[str, ...]], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            alike[self._limits(prompts[i], request.args[1])].append(i)
        came, names = Counter[str](), list[str]()
        for prompt in map(str, prompts):
            names.append(f"{prompt} {came[prompt]}" if came[prompt] else prompt)
            came[prompt] += 1
        if self.sample:
            names = [f"{name}/{self.sample}" for name in names]
        self.acted.clear()
        self.written.clear()
        unclosed = 0
        answers = [""] * len(requests)
        for (max_new_tokens, temperature, until), members in alike.items():
            written = self.engine.generate(
                [prompts[i] for i in members],
                max_new_tokens,
                names=[names[i] for i in members],
                policy=self.policy,
                temperature=temperature,
                draws=Draws(partial(sample_key, self.seed, 0)),
                stop=until,
                batch_size=self._batch_size,
                record=self.policy is not None,
                quiet=True,
                progress="generate_until" if shows_bars() and not disable_tqdm else None,
            )
            passes = [0] * len(members)
            if (events := written.events) is not None:
                self.acted.update(events.layer.tolist())
                passes = events.request.bincount(events.passes, len(members)).int().tolist()
            for i, tokens, extra in zip(members, written.tokens, passes, strict=True):
                ids, n_prompt = prompts[i] + tokens, len(prompts[i])
                unclosed += self.engine.chat.spans(ids, n_prompt).truncated
                answer = self.engine.chat.answer_text(ids, n_prompt)
                for end in filter(None, until):
                    answer = answer.split(end)[0]
                answers[i] = answer
                document = (requests[i].task_name, requests[i].doc_id)
                self.written.append(Written(document, prompts[i], tokens, extra))
                self.cache_hook.add_partial("generate_until", requests[i].args, answer)
        if unclosed:
            _log.warning("%d of %d thoughts never closed: no answer", unclosed, len(requests))
        if self.policy is not None and requests:
            extra = sum(one.passes for one in self.written)
            _log.info("policy acted on %d states, with %d extra passes", self.acted.total(), extra)
            if not self.acted:
                warnings.warn(
                    f"the policy changed nothing in {len(requests)} responses; check its thresholds",
                    UntriggeredWarning,
                    stacklevel=2,
                )
        return answers

    def _limits(self, prompt: list[int], given: dict[str, Any]) -> tuple[int, float, tuple[str, ...]]:
        """As `generation_settings`, within the room behind the prompt, and at `temperature` if that is given."""
        wanted, temperature, until = generation_settings(given, self._default)
        room = self._room - len(prompt)
        if room < 1:
            raise NormprobeError(
                f"expected prompts of fewer than {self._room} tokens, got one of {len(prompt)}; "
                "give fewer examples (--num_fewshot), or leave the task out"
            )
        return min(wanted, room), temperature if self.temperature is None else float(self.temperature), until

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> Never:
        """Refused: a policy acts on what the model itself writes, and a text that is merely scored was not."""
        raise NormprobeError(
            f"expected tasks that generate, got {requests[0].task_name or 'one'} that scores given texts, where no "
            "policy can act; use its generative variant, or --model hf for the plain model"
        )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> Never:
        """Refused, as `loglikelihood`."""
        self.loglikelihood(requests)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes with its results: the identity of the weights."""
        return {"model_identity": self.engine.identity.to_dict()}


def main(argv: list[str] | None = None) -> None:
    """lm-eval's own command line, with this model and the task pack."""
    # It reads nothing but sys.argv.
    given, sys.argv = sys.argv, ["lm_eval", *(sys.argv[1:] if argv is None else argv)]
    try:
        setup_logging()
        harness = HarnessCLI()
        arguments = harness.parse_args()
        if "include_path" in arguments:
            others = [] if arguments.include_path is None else [arguments.include_path]
            arguments.include_path = [str(DIRECTORY), *others]
        harness.execute(arguments)
    finally:
        sys.argv = given


if __name__ == "__main__":
    sys.exit(run_main(main))
