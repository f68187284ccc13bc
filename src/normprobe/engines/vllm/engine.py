"""A `vllm.LLM` as an engine: greedy responses, plain or under policies, from one process.

Policies reach vLLM's workers as text, so only those can be used that a request could describe (see
`normprobe.policies.spec`). What this engine does not give: sampling with draws keyed by request, strings that end
a response, events, and the warning that a policy never acted.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from normprobe.engines.base import Draws, Generated, check_room
from normprobe.engines.vllm.configuration import FIELD, PLAIN, Configuration
from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.policies.policy import Policy
from normprobe.policies.spec import spec_of


@dataclass(frozen=True)
class VllmEngine:
    """A `vllm.LLM` that generates in this process (see `normprobe.engines.base.Engine`).

    llm: started with normprobe, if policies are to be used. chat, identity: of the model that it holds.
    """

    llm: Any
    chat: Chat
    identity: ModelIdentity

    @property
    def context(self) -> int | None:
        return self.llm.llm_engine.vllm_config.model_config.max_model_len

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        names: Sequence[str] | None = None,
        policy: Policy | Sequence[Policy | None] | None = None,
        temperature: float = 0.0,
        draws: Draws | None = None,
        stop: Sequence[str] = (),
        batch_size: int = 128,
        record: bool = False,
        quiet: bool = False,
        progress: str | None = None,
    ) -> Generated:
        """As `Engine.generate` describes it; vLLM's scheduler makes the batches, whatever `batch_size` is.

        Raises NormprobeError also for sampling, a record of events, a name twice, and a policy no request can describe.
        """
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError

        if temperature > 0:
            raise NormprobeError(
                f"expected greedy generation, got temperature {temperature}: vLLM cannot sample with draws keyed by "
                "request; use the engine hf"
            )
        if stop:
            raise NormprobeError(
                f"expected no strings that end a response, got {stop[0]!r}: vLLM would look for them in the thought, "
                "too; use the engine hf"
            )
        if record:
            raise NormprobeError(
                "expected no record of events, which vLLM does not keep, got record=True; use the engine hf"
            )
        names = [str(i) for i in range(len(prompts))] if names is None else list(names)
        if len(set(names)) < len(names):
            raise NormprobeError("expected names that differ, got one twice; name each request by itself")
        check_room(self, dict(zip(names, prompts, strict=True)), max_new_tokens)
        policies = policy if isinstance(policy, Sequence) else [policy] * len(prompts)
        specs = [self._spec(one) for one in policies]
        engine = self.llm.llm_engine
        try:
            for name, prompt, spec in zip(names, prompts, specs, strict=True):
                params = SamplingParams(
                    temperature=0.0,
                    max_tokens=max_new_tokens,
                    stop_token_ids=list(self.chat.eos_ids),
                    extra_args=None if spec is None else {FIELD: spec},
                    detokenize=False,
                )
                engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
            done = {}
            with tqdm(total=len(prompts), desc=progress, unit="problem", disable=progress is None) as bar:
                while engine.has_unfinished_requests():
                    finished = [output for output in engine.step() if output.finished]
                    done |= {output.request_id: output for output in finished}
                    bar.update(len(finished))
        except VLLMValidationError as error:
            engine.abort_request(names)
            raise NormprobeError(str(error)) from error
        responses = [done[name].outputs[0] for name in names]
        return Generated(
            tokens=[list(response.token_ids) for response in responses],
            finish=[response.finish_reason for response in responses],
            events=None,
            probes=[(done[name].kv_transfer_params or {}).get(FIELD) for name in names],
        )

    def _spec(self, policy: Policy | None) -> Any:
        """The description of a policy that a request carries; None for an engine without normprobe."""
        configuration = Configuration.of(self.llm.llm_engine.vllm_config.additional_config)
        if policy is None:
            return configuration and PLAIN
        if configuration is None:
            raise NormprobeError(
                "expected an engine started with normprobe to use a policy, got one without; "
                'pass additional_config={"normprobe": PROFILE} to vllm.LLM'
            )
        return spec_of(policy, configuration.layer_profile())
