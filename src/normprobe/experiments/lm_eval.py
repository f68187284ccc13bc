"""lm-evaluation-harness with policies: `--model normprobe`, and a command line that knows it and the task pack.

    python -m normprobe.experiments.lm_eval --model normprobe \
        --model_args pretrained=tiny-thinker,policy=alrr,profile=runs/tiny-thinker/layer_profile.json \
        --tasks normprobe_testbed --apply_chat_template --batch_size 64

The command `lm_eval` looks models up in a registry that only its own process fills (0.4.13 reads no entry points), so
`main` registers the model, adds the task pack, and hands over to it; all its other models and tasks stay available.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Never

import torch
from jaxtyping import Int

from normprobe.console import run_main
from normprobe.engines.base import UntriggeredWarning
from normprobe.engines.hf import intervene
from normprobe.errors import NormprobeError
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.layer_profile import LayerProfile
from normprobe.models.chat import CLOSE, OPEN
from normprobe.models.open import open_model
from normprobe.models.threads import use_one_thread_if_tiny
from normprobe.policies.spec import Spec, build

try:
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import register_model
    from lm_eval.models import huggingface
    from lm_eval.utils import setup_logging
except ImportError as cause:
    raise NormprobeError(
        f"expected lm-eval ≥ 0.4.13, got none that works ({cause}); pip install 'normprobe[lm-eval]'"
    ) from cause

MODES = ("think", "no_think")
HFLM: Any = huggingface.HFLM  # its decorator hides its type from a checker
_log = logging.getLogger("lm_eval.normprobe")  # below lm-eval's own, so that its settings show it


@register_model("normprobe")
class NormprobeLM(HFLM):
    """A thinking model that generates under a policy; lm-eval's own `hf` model in all else, token for token.

    pretrained: as `open_model` takes it: "tiny-thinker", a directory or a hub id.
    policy: a name, or a mapping with settings (see `normprobe.policies.spec`); None: the plain model. On the command
        line a mapping needs all of --model_args as JSON: '{"pretrained": …, "policy": {"policy": "alrr", "k": 2}}'.
    profile: path of the layer profile that the policy takes its thresholds from.
    mode: "think" or "no_think". A response is what follows the thought; a thought that never closed has none.
    device: where there is no CUDA, a CUDA device (lm-eval's default) means the CPU, as for `hf`.
    max_length: tokens of prompt and response together; by default the model's own limit.
    revision, dtype, trust_remote_code: as `open_model` takes them.

    acted, n_tokens: of the latest call, by layer the states that the policy acted on, and the tokens generated.

    A policy's random draws are keyed by the tokens of the prompt: no response depends on the batch it was written in.
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
        batch_size: int | str = 1,
        max_batch_size: int = 64,
        **unknown: object,
    ) -> None:
        if unknown:
            raise NormprobeError(
                "expected model_args among pretrained, policy, profile, mode, revision, dtype, offline, "
                f"trust_remote_code and max_length, got {', '.join(unknown)}; correct the names"
            )
        if mode not in MODES:
            raise NormprobeError(f"expected a mode of {', '.join(MODES)}, got {mode!r}; choose one of these")
        if profile is not None and policy is None:
            raise NormprobeError(
                "expected a policy with the profile, got none; name one, such as policy=alrr"
            )
        if device.startswith("cuda") and not torch.cuda.is_available():
            device = "cpu"
        self.mode = mode
        self.opened = open_model(
            pretrained,
            revision=revision,
            dtype=dtype,
            device=device,
            offline=offline,
            trust_remote_code=trust_remote_code,
        )
        use_one_thread_if_tiny(self.opened)
        measured = None if profile is None else LayerProfile.load(Path(profile))
        if measured is not None:
            measured.for_model(self.opened.identity.to_dict())
        self.policy = None if policy is None else build(policy, measured)
        self.acted: Counter[int] = Counter()
        self.n_tokens = self._passes = self._unclosed = 0
        super().__init__(
            self.opened.model,
            tokenizer=self.opened.tokenizer,
            max_length=max_length,
            batch_size=batch_size,
            max_batch_size=max_batch_size,
            enable_thinking=mode == "think",
            think_end_token=CLOSE,
        )

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt in this mode, also where the template has no switch for it (see `normprobe.models.chat`)."""
        text = super().apply_chat_template(chat_history, add_generation_prompt)
        if self.mode == "think" or not add_generation_prompt or text.rstrip().endswith(CLOSE):
            return text
        opened = text if text.rstrip().endswith(OPEN) else f"{text}{OPEN}\n"
        return f"{opened}\n{CLOSE}\n\n"

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, in order. Logs what the policy did, and how many thoughts never closed.

        Raises NormprobeError for prompts outside the chat template. Warns (UntriggeredWarning) if the policy never
        acted.
        """
        _, _, ending = self.apply_chat_template([{"role": "user", "content": "?"}]).rpartition("?")
        if bare := next((request.args[0] for request in requests if ending not in request.args[0]), None):
            raise NormprobeError(
                f"expected prompts in the model's chat template, got one that ends in {bare[-40:]!r}; "
                "add --apply_chat_template, and leave out tasks that begin the answer themselves"
            )
        self.acted.clear()
        self.n_tokens = self._passes = self._unclosed = 0
        answers = super().generate_until(requests, disable_tqdm)
        if self._unclosed:
            _log.warning("%d of %d thoughts never closed: no answer", self._unclosed, len(requests))
        if self.policy is not None and requests:
            _log.info("policy acted on %d states, with %d extra passes", self.acted.total(), self._passes)
            if not self.acted:
                warnings.warn(
                    f"the policy changed nothing in {len(requests)} responses; check its thresholds",
                    UntriggeredWarning,
                    stacklevel=2,
                )
        return answers

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> Never:
        """Refused: a policy acts on what the model itself writes, each token with the history of those before it.

        A text that is merely scored was not written so: its likelihood would say nothing of generating under the
        policy, and that of the plain model is what `--model hf` gives.
        """
        raise NormprobeError(
            f"expected tasks that generate, got {requests[0].task_name or 'one'} that scores given texts, where no "
            "policy can act; use its generative variant, or --model hf for the plain model"
        )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> Never:
        """Refused, as `loglikelihood`."""
        self.loglikelihood(requests)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes with its results: its own facts, and the identity of the weights."""
        return super().get_model_info() | {"model_identity": self.opened.identity.to_dict()}

    def _model_generate(
        self, context: Int[torch.Tensor, "row token"], max_length: int, stop: list[str], **settings: Any
    ) -> Int[torch.Tensor, "row longer"]:
        """One batch, its prompts padded on the left: each row is the prompt, the response, and end tokens."""
        mask = settings["attention_mask"]
        if self.policy is None:
            written = super()._model_generate(context, max_length, stop, **settings)
        else:
            names = [str(ids[kept].tolist()) for ids, kept in zip(context, mask.bool(), strict=True)]
            # The warning is due once, for all batches.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UntriggeredWarning)
                with intervene(self.opened, self.policy, requests=names, record=True) as intervention:
                    written = super()._model_generate(context, max_length, stop, **settings)
            events = intervention.events()
            self.acted.update(events.layer.tolist())
            self._passes += int(events.passes.sum())
        return self._closed(written, context.shape[1])

    def _closed(
        self, written: Int[torch.Tensor, "row longer"], n_prompt: int
    ) -> Int[torch.Tensor, "row longer"]:
        """The rows, with nothing but end tokens where a thought never closed: no part of it can pass for an answer."""
        chat = self.opened.chat
        for row, ids in enumerate(written.tolist()):
            ends = [at for at, token in enumerate(ids[n_prompt:], 1) if token in chat.eos_ids]
            self.n_tokens += min(ends, default=len(ids) - n_prompt)
            if chat.spans(ids, n_prompt).truncated:
                written[row, n_prompt:] = chat.eos_ids[0]
                self._unclosed += 1
        return written


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
