"""What normprobe finds in a model before anything is run on it: `normprobe doctor MODEL`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes

from normprobe.config import ModelSettings, ResponseSettings, Study, ThinkingSettings
from normprobe.console import parse, run_main

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    from normprobe.models.chat import Chat
    from normprobe.models.model import OpenModel

QUESTION = "What is 17 + 25?"
N_FILLER = 3


@dataclass(frozen=True)
class DoctorCommand:
    """Tell what is found in a model: how it thinks, its prompts, sites, sinks and context; and what a run costs."""

    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)
    max_new_tokens: int = 2048
    """limit of a response, for the estimates"""


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe doctor`. The model's name may stand first, without --model."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and not given[0].startswith("-"):
        given.insert(0, "--model")
    command = parse(DoctorCommand, given, "doctor")
    from normprobe.models.open import open_for, use_one_thread_if_tiny

    opened = open_for(command.model, command.thinking)
    use_one_thread_if_tiny(opened)
    study = replace(
        Study(), model=command.model, responses=ResponseSettings(max_new_tokens=command.max_new_tokens)
    )
    for title, facts in (
        ("model", _model(opened)),
        ("thinking format", _format(opened.chat)),
        ("prompts", _prompts(opened.chat)),
        ("residual stream", _stream(opened)),
        (f"a run of the default size, {command.max_new_tokens} tokens a response", _cost(study)),
    ):
        print(title)
        for name, value in facts:
            print(f"  {name:<18} {value}")


def _model(opened: OpenModel) -> Iterator[tuple[str, Any]]:
    identity = opened.identity
    yield "architecture", identity.architecture
    yield (
        "size",
        (
            f"{opened.model.num_parameters():,} parameters in {identity.dtype}, {identity.n_layers} layers of "
            f"{identity.d_model}, {identity.vocab:,} tokens"
        ),
    )
    yield "weights", identity.weights[:16]
    yield "context", "no limit" if opened.context is None else f"{opened.context:,} tokens"
    yield "ends", ", ".join(_token(opened, token) for token in opened.chat.eos_ids)
    yield "padding", _token(opened, opened.chat.pad_id)


def _format(chat: Chat) -> Iterator[tuple[str, Any]]:
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


def _prompts(chat: Chat) -> Iterator[tuple[str, Any]]:
    for mode, n in (("think", 0), ("no_think", 0), ("filler", N_FILLER)):
        yield mode, repr(chat.text(chat.prompt_ids(QUESTION, mode, n)))


def _stream(opened: OpenModel) -> Iterator[tuple[str, Any]]:
    """What the self-check proved, and the sinks of one prompt."""
    import numpy as np
    import torch

    from normprobe.models.sites import record_sites
    from normprobe.tracing.trace import SINK_FACTOR, sinks

    prompt = opened.chat.prompt_ids(QUESTION, "think")
    with record_sites(opened) as sites, torch.no_grad():
        opened.model(torch.tensor([prompt], device=opened.device), use_cache=False)
        norm = np.stack([state[0].float().norm(dim=-1).cpu().numpy() for state in sites.states])
    yield "sites", f"{len(norm)}, proved alone, in a batch, and padded on either side"
    found = np.flatnonzero(sinks(norm, np.arange(len(prompt)))).tolist()
    tokens = ", ".join(f"{i} {_token(opened, prompt[i])}" for i in found)
    yield "sinks", f"tokens {tokens} of the think prompt (norm over {SINK_FACTOR:g} medians, or the first)"
    medians = np.median(norm, axis=1)
    yield "median norm", f"{medians[0]:.3g} after the first layer, {medians[-1]:.3g} after the last"


def _cost(study: Study) -> Iterator[tuple[str, Any]]:
    from normprobe.dry_run import NOTE, cost
    from normprobe.estimates import StudySizes
    from normprobe.study_stages import needed

    sizes = study.problems
    work = StudySizes.of(study, {"sae": sizes.n_sae, "select": sizes.n_select, "measure": sizes.n_measure})
    for stage in needed(["evidence"]):
        yield stage, "{:>10} {:>12}".format(*cost(work, stage))
    yield "", NOTE


def _token(opened: OpenModel, token: int) -> str:
    return f"{opened.chat.text([token])!r} ({token})"


if __name__ == "__main__":
    sys.exit(run_main(main))
