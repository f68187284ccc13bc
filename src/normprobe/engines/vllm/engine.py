"""A `vllm.LLM` as an engine: greedy or sampled responses, plain or under policies, to many prompts.

vLLM's scheduler makes the batches; requests are handed over a few at a time, so that memory does not grow with their
number. Policies reach the workers as text: those that a request could describe (see `normprobe.policies.spec`) as
such, any other by a name under which the workers keep it for the call.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from normprobe.engines.base import (
    Draws,
    Finish,
    Generated,
    UntriggeredWarning,
    check_draws,
    check_room,
    holds_stop,
)
from normprobe.engines.vllm.configuration import FIELD, KEPT, PLAIN, RECORD, Configuration, canonical
from normprobe.engines.vllm.core.reports import merged
from normprobe.engines.vllm.keyed_draws import DRAWS, KeyedDraws
from normprobe.engines.vllm.limits import Limits
from normprobe.engines.vllm.reported_events import events_of
from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.policies.policy import Policy
from normprobe.policies.probe import Probe
from normprobe.policies.spec import spec_of
from normprobe.policies.written import write_policy

AHEAD = 2
"""Requests that vLLM has at a time, as a multiple of those that it serves at a time."""


@dataclass
class _Response:
    """What a request has brought so far."""

    tokens: list[int] = field(default_factory=list)
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VllmEngine:
    """A `vllm.LLM` that generates (see `normprobe.engines.base.Engine`).

    llm: started with normprobe, if it is to sample or to use policies. chat, identity: of the model that it holds.
    """

    llm: Any
    chat: Chat
    identity: ModelIdentity

    @property
    def context(self) -> int | None:
        return self._config.model_config.max_model_len

    @property
    def _config(self) -> Any:
        return self.llm.llm_engine.vllm_config

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

        Raises NormprobeError also for a name twice, and for sampling or a policy in an engine without normprobe.
        """
        names = [str(i) for i in range(len(prompts))] if names is None else list(names)
        if len(set(names)) < len(names):
            raise NormprobeError("expected names that differ, got one twice; name each request by itself")
        check_draws(temperature, draws)
        check_room(self, dict(zip(names, prompts, strict=True)), max_new_tokens)
        policies = list(policy) if isinstance(policy, Sequence) else [policy] * len(prompts)
        if temperature > 0:
            self._check_sampling()
        with self._described(policies) as described:

            def arguments(i: int) -> dict[str, Any]:
                one = policies[i]
                extra: dict[str, Any] = {} if described[id(one)] is None else {FIELD: described[id(one)]}
                if one is not None and (record or not quiet):
                    extra[RECORD] = True
                if draws is not None and temperature > 0:
                    extra[DRAWS] = KeyedDraws(temperature, tuple(draws.key(names[i]))).to_dict()
                return extra

            def ended(i: int, tokens: list[int]) -> bool:
                return bool(stop) and holds_stop(self.chat, prompts[i], tokens, stop)

            with tqdm(total=len(prompts), desc=progress, unit="problem", disable=progress is None) as bar:
                served = self._serve(names, prompts, max_new_tokens, arguments, ended, bar.update)
        events = events_of([(one.report.get("events", {}), len(one.tokens)) for one in served])
        if not quiet:
            _warn_of_untriggered(policies, set(events.request.tolist()))
        return Generated(
            tokens=[one.tokens for one in served],
            finish=[self._finish(one.tokens, max_new_tokens) for one in served],
            events=events if record else None,
            probes=[_probe(one.report) for one in served],
        )

    def _serve(
        self,
        names: Sequence[str],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        arguments: Callable[[int], dict[str, Any]],
        ended: Callable[[int, list[int]], bool],
        done: Callable[[int], object],
    ) -> list[_Response]:
        """The responses to all prompts. arguments: what a request carries. ended: whether a string ends it here."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind

        engine, responses = self.llm.llm_engine, [_Response() for _ in prompts]
        most = AHEAD * self._config.scheduler_config.max_num_seqs
        waiting, going, vllms_name = iter(range(len(prompts))), dict[str, int](), dict[str, str]()
        try:
            while True:
                for i in waiting:
                    params = SamplingParams(
                        temperature=0.0,
                        max_tokens=max_new_tokens,
                        stop_token_ids=list(self.chat.eos_ids),
                        extra_args=arguments(i),
                        detokenize=False,
                        output_kind=RequestOutputKind.DELTA,
                    )
                    prompt = {"prompt_token_ids": list(prompts[i])}
                    vllms_name[names[i]] = engine.add_request(names[i], prompt, params)
                    going[names[i]] = i
                    if len(going) >= most:
                        break
                if not going:
                    return responses
                for output in engine.step():
                    if (i := going.get(output.request_id)) is None:
                        continue
                    response = responses[i]
                    response.tokens += output.outputs[0].token_ids
                    if output.finished:
                        response.report = (output.kv_transfer_params or {}).get(FIELD) or {}
                    elif ended(i, response.tokens):
                        response.report = self._abort(vllms_name[output.request_id])
                    else:
                        continue
                    del going[output.request_id], vllms_name[output.request_id]
                    done(1)
        except VLLMValidationError as error:
            raise NormprobeError(str(error)) from error
        finally:
            if vllms_name:
                engine.abort_request(list(vllms_name.values()), internal=True)

    def _abort(self, request: str) -> Mapping[str, Any]:
        """End a request; returns its results, which vLLM would not bring."""
        results: Mapping[str, Any] = {}
        if Configuration.of(self._config.additional_config) is not None:
            results = merged(self.llm.collective_rpc("normprobe_results", args=([request],)))
        self.llm.llm_engine.abort_request([request], internal=True)
        return results.get(request, {})

    def _finish(self, tokens: list[int], max_new_tokens: int) -> Finish:
        return "stop" if tokens[-1] in self.chat.eos_ids or len(tokens) < max_new_tokens else "length"

    @contextmanager
    def _described(self, policies: Sequence[Policy | None]) -> Iterator[dict[int, Any]]:
        """By id of a policy, the description that its requests carry; None for an engine without normprobe.

        Within the block the workers, and the front end, keep the policies that no request could describe.
        Raises NormprobeError for a policy that this engine cannot use.
        """
        configuration = Configuration.of(self._config.additional_config)
        texts: dict[int, Any] = {}
        written: dict[str, str] = {}
        for policy in {id(one): one for one in policies}.values():
            if policy is None:
                texts[id(policy)] = configuration and PLAIN
                continue
            if configuration is None:
                raise self._without("use a policy")
            self._check(policy)
            try:
                texts[id(policy)] = spec_of(policy, configuration.layer_profile())
            except NormprobeError:
                if any(isinstance(part, Probe) for part in policy.parts):
                    raise  # such a request would bring no results
                content = write_policy(policy)
                text = canonical({KEPT: hashlib.sha256(content.encode()).hexdigest()[:16]})
                written[text], texts[id(policy)] = content, json.loads(text)
        kept = self._config.additional_config.setdefault(KEPT, {}) if written else {}
        for text, content in written.items():
            kept[text] = content
            self.llm.collective_rpc("normprobe_keep", args=(text, content))
        try:
            yield texts
        finally:
            for text in written:
                kept.pop(text, None)
                self.llm.collective_rpc("normprobe_keep", args=(text, None))

    def _check_sampling(self) -> None:
        if Configuration.of(self._config.additional_config) is None:
            raise self._without("sample")
        if self._config.parallel_config.enable_batch_sharded_sampling:
            raise NormprobeError(
                "expected whole logits to sample from, got batch-sharded sampling; drop enable_batch_sharded_sampling"
            )

    def _check(self, policy: Policy) -> None:
        """Raises NormprobeError for layers that the model lacks, what exceeds a limit, or entropies unknown there."""
        n_layers = self.identity.n_layers
        if absent := [layer for layer in policy.layers if not 0 <= layer < n_layers]:
            raise NormprobeError(
                f"expected layers 0…{n_layers - 1}, got {absent}; use layers that the model has"
            )
        limits = Limits.of(self._config)
        limits.check(policy)
        limits.check_memory(policy)
        parallel = self._config.parallel_config
        if policy.reads_entropy and (
            parallel.pipeline_parallel_size > 1 or parallel.enable_batch_sharded_sampling
        ):
            raise NormprobeError(
                "expected a policy that reads no entropies where not every worker knows them, in a pipeline or under "
                "batch-sharded sampling, got one that does; use tensor parallelism"
            )

    def _without(self, what: str) -> NormprobeError:
        return NormprobeError(
            f"expected an engine started with normprobe to {what}, got one without; "
            'pass additional_config={"normprobe": PROFILE} to vllm.LLM'
        )


def _probe(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a probe measured; None without one."""
    return {key: value for key, value in report.items() if key != "events"} or None


def _warn_of_untriggered(policies: Sequence[Policy | None], acted: set[int]) -> None:
    """Warn (UntriggeredWarning) of each policy that acted in none of its responses."""
    of: dict[int, list[int]] = {}
    for i, policy in enumerate(policies):
        if policy is not None:
            of.setdefault(id(policy), []).append(i)
    for members in of.values():
        if acted.isdisjoint(members):
            warnings.warn(
                f"the policy changed nothing in {len(members)} responses; check its thresholds with a probe",
                UntriggeredWarning,
                stacklevel=3,
            )
