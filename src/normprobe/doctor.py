"""What normprobe finds in a model before anything is run on it: `normprobe doctor MODEL`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes

from normprobe.config import ResponseSettings, Study
from normprobe.console import parse, print_json, run_main
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.settings import optional

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    from normprobe.models.chat import Chat
    from normprobe.models.model import OpenModel

QUESTION = "What is 17 + 25?"
N_FILLER = 3
LIMIT = 2048
"""Tokens of a response, where nothing else is known: what a file of problems allows."""


@dataclass(frozen=True)
class DoctorCommand:
    """Tell what is found in a model: how it thinks, its prompts, sites, sinks and context; and what a run costs.

    `normprobe doctor NAME` is `normprobe doctor --model NAME`: the name stands before options with values.
    """

    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)
    max_new_tokens: Annotated[int | None, optional(metavar="INT")] = None
    """limit of a response, for the estimates (that of a bundled model's own problems, else 2048, in its context)"""
    json: bool = False
    """print one JSON document instead of text"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe doctor`. The model's name may stand first, or after --json, without --model."""
    given = sorted(sys.argv[1:] if argv is None else argv, key=lambda argument: argument == "--json")
    if given and not given[0].startswith("-"):
        given.insert(0, "--model")
    command = parse(DoctorCommand, given, "doctor")
    from normprobe.models.open import open_for, use_one_thread_if_tiny

    opened = open_for(command.model, command.thinking)
    use_one_thread_if_tiny(opened)
    study = replace(Study(), model=command.model)
    limit = command.max_new_tokens
    if limit is None:
        limit = min(study.max_new_tokens if command.model.is_bundled else LIMIT, opened.context or LIMIT)
    study = replace(study, responses=ResponseSettings(max_new_tokens=limit))
    found = {
        "model": _model(opened),
        "thinking_format": opened.chat.format.to_dict(),
        "prompts": _prompts(opened.chat),
        "residual_stream": _stream(opened),
        "cost": _cost(study),
    }
    if command.json:
        print_json(found)
        return
    for title, facts in (
        ("model", _model_text(opened, found["model"])),
        ("thinking format", _format_text(opened.chat)),
        ("prompts", {mode: repr(prompt) for mode, prompt in found["prompts"].items()}.items()),
        ("residual stream", _stream_text(opened, found["residual_stream"])),
        (
            f"a run of the default size: {sum(_sizes(study).values())} problems, {limit} tokens a response",
            _cost_text(found["cost"]),
        ),
    ):
        print(title)
        for name, value in facts:
            print(f"  {name:<18} {value}")


def _model(opened: OpenModel) -> dict[str, Any]:
    return opened.identity.to_dict() | {
        "parameters": opened.model.num_parameters(),
        "context": opened.context,
        "eos_ids": list(opened.chat.eos_ids),
        "pad_id": opened.chat.pad_id,
    }


def _model_text(opened: OpenModel, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "architecture", found["architecture"]
    yield (
        "size",
        (
            f"{found['parameters']:,} parameters in {found['dtype']}, {found['n_layers']} layers of "
            f"{found['d_model']}, {found['vocab']:,} tokens"
        ),
    )
    yield "weights", found["weights"][:16]
    yield "context", "no limit" if found["context"] is None else f"{found['context']:,} tokens"
    yield "ends", ", ".join(_token(opened, token) for token in found["eos_ids"])
    yield "padding", _token(opened, found["pad_id"])


def _format_text(chat: Chat) -> Iterator[tuple[str, Any]]:
    marks = chat.format
    yield "found by", marks.name
    yield "thought", f"{marks.open or '(the response)'!r} … {marks.close!r}"
    if marks.answer_open:
        yield "answer", f"{marks.answer_open!r} … {marks.answer_close!r}"
    for mode in ("think", "no_think"):
        asked = chat.ask(mode)
        means = {
            "keywords": dict(asked.kwargs),
            "system text": asked.system,
            "instruction": asked.instruction,
            "written for it": asked.prefill,
        }
        how = "; ".join(f"{name} {value!r}" for name, value in means.items() if value)
        yield mode, f"{asked.how}: {how or 'as the template has it'}"


def _prompts(chat: Chat) -> dict[str, str]:
    modes = {"think": 0, "no_think": 0, "filler": N_FILLER}
    return {mode: chat.text(chat.prompt_ids(QUESTION, mode, n)) for mode, n in modes.items()}


def _stream(opened: OpenModel) -> dict[str, Any]:
    """What the self-check proved, and the sinks of one prompt."""
    import numpy as np

    from normprobe.tracing.norms import read_norms
    from normprobe.tracing.trace import sinks

    prompt = opened.chat.prompt_ids(QUESTION, "think")
    (norm,) = read_norms(opened, [prompt])
    found = np.flatnonzero(sinks(norm, np.arange(len(prompt)))).tolist()
    return {
        "sites": len(norm),
        "sinks": [{"position": i, "token_id": prompt[i]} for i in found],
        "median_norm": np.median(norm, axis=1).tolist(),
    }


def _stream_text(opened: OpenModel, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    from normprobe.tracing.trace import SINK_FACTOR

    yield "sites", f"{found['sites']}, proved alone, in a batch, and padded on either side"
    tokens = ", ".join(f"{sink['position']} {_token(opened, sink['token_id'])}" for sink in found["sinks"])
    yield "sinks", f"tokens {tokens} of the think prompt (norm over {SINK_FACTOR:g} medians, or the first)"
    medians = found["median_norm"]
    yield "median norm", f"{medians[0]:.3g} after the first layer, {medians[-1]:.3g} after the last"


def _cost(study: Study) -> dict[str, dict[str, float | None]]:
    """By stage of a run: seconds and gigabytes, None where not known."""
    from normprobe.estimates import StudySizes
    from normprobe.study_stages import needed

    work = StudySizes.of(study, _sizes(study))
    return {
        stage: {"seconds": work.seconds(stage, None), "gigabytes": work.gigabytes(stage)}
        for stage in needed(["evidence"])
    }


def _sizes(study: Study) -> dict[str, int]:
    sizes = study.problems
    return {"sae": sizes.n_sae, "select": sizes.n_select, "measure": sizes.n_measure}


def _cost_text(found: Mapping[str, Mapping[str, float | None]]) -> Iterator[tuple[str, Any]]:
    from normprobe.dry_run import NOTE, in_words
    from normprobe.estimates import in_all

    for stage, cost in found.items():
        yield stage, "{:>10} {:>12}".format(*in_words(cost["seconds"], cost["gigabytes"]))
    yield "", f"{in_all(cost['seconds'] for cost in found.values())} {NOTE}".strip()


def _token(opened: OpenModel, token: int) -> str:
    return f"{opened.chat.text([token])!r} ({token})"


if __name__ == "__main__":
    sys.exit(run_main(main))
