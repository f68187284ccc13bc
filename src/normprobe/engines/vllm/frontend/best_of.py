"""LRS best of n in one call: sample n responses to each prompt, and sort them by a score of their norms."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

from vllm import RequestOutput, SamplingParams

from normprobe.engines.vllm.configuration import FIELD
from normprobe.errors import NormprobeError
from normprobe.policies.lrs import FORMS, rank

SCORES = tuple(form + per for form in FORMS for per in ("", "_per_token"))


def best_of(
    llm: Any, prompts: Any, sampling_params: SamplingParams, form: str = "last_third", **generate: Any
) -> list[RequestOutput]:
    """Generate as `llm.generate`, and sort the n responses to each prompt from the highest score to the lowest.

    `outputs[0]` is then the response that `normprobe.policies.lrs.choose` chooses.

    llm: a `vllm.LLM` started with normprobe. sampling_params: with n > 1; the policy that its extra_args name must hold
    a probe, and is the probe alone by default. form: a key of `normprobe.policies.lrs.lrs_scores`, by default the
    paper's. generate: further arguments of `llm.generate`.

    The scores stay on the outputs, in `kv_transfer_params["normprobe"]["samples"][str(response.index)]["scores"]`.
    Raises NormprobeError for another form, one response only, or a policy without a probe.
    """
    if form not in SCORES:
        raise NormprobeError(f"expected a form among {', '.join(SCORES)}, got {form!r}; correct it")
    if sampling_params.n < 2:
        raise NormprobeError(
            f"expected several responses to choose from, got n = {sampling_params.n}; raise n"
        )
    params = sampling_params.clone()
    params.extra_args = {FIELD: "probe", **(params.extra_args or {})}
    outputs = llm.generate(prompts, params, **generate)
    for output in outputs:
        samples = (output.kv_transfer_params or {}).get(FIELD, {}).get("samples")
        if samples is None:
            raise NormprobeError(
                f"expected a policy with a probe, got {params.extra_args[FIELD]!r}; "
                'add {"policy": "probe"} to it, and start the engine with normprobe'
            )
        scores = [samples[str(response.index)]["scores"][form] for response in output.outputs]
        output.outputs = [output.outputs[i] for i in rank(scores)]
    return outputs
