"""`normprobe generate`: answer questions, plainly or under a policy, and report what the policy did.

The bundled model knows questions of the testbed's form, such as "math : a= 4 ; b: a +9 ; ? b".
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxtyping import Float
from tyro.conf import OmitArgPrefixes, Positional

from normprobe.console import has_colours, parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.report.shaded_text import printable, shaded
from normprobe.runs.untrusted import json_value
from normprobe.settings import optional

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    import numpy as np

    from normprobe.engines.base import Generated
    from normprobe.models.model import OpenModel
    from normprobe.policies.spec import Spec


@dataclass(frozen=True)
class GenerateCommand:
    """Answer questions, plainly or under a policy, greedy. A terminal shows each token of an answer shaded by its
    norm."""

    question: Annotated[Positional[tuple[str, ...]], optional(metavar="QUESTION")]
    """questions, each one argument"""
    policy: Annotated[str | None, optional(metavar="NAME|JSON")] = None
    """a name ("alrr") or JSON ({"policy": "alrr", …}); without it the plain model answers"""
    profile: Annotated[Path | None, optional(metavar="FILE")] = None
    """layer_profile.json of a run on this model"""
    mode: Literal["think", "no_think"] = "think"
    """whether the model is to think"""
    max_new_tokens: int = 160
    """limit of a response"""
    layer: Annotated[int | None, optional(metavar="INT")] = None
    """the layer whose norm shades the tokens and which --json tells, from 0 (the last but one)"""
    json: bool = False
    """print one JSON document instead of text"""
    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe generate`: the answers as text, shaded in a terminal, or one JSON document."""
    arguments = parse(GenerateCommand, argv, "generate")
    if not arguments.question:
        raise NormprobeError("expected a question, got none; give one or more, each as one argument")
    spec = None if arguments.policy is None else read_spec(arguments.policy)
    if arguments.max_new_tokens < 1:
        raise NormprobeError(f"expected at least one new token, got {arguments.max_new_tokens}; ask for more")
    from normprobe.engines.engine_choice import engine_of
    from normprobe.layer_profile import LayerProfile
    from normprobe.models.open import open_for, use_one_thread_if_tiny
    from normprobe.models.unknown_words import warn_of_unknown_words
    from normprobe.policies.spec import build
    from normprobe.tracing.norms import shown_layer

    arguments.model.check_engine()
    profile = None if arguments.profile is None else LayerProfile.load(arguments.profile)
    policy = None if spec is None else build(spec, profile)
    opened = open_for(arguments.model, arguments.thinking)
    use_one_thread_if_tiny(opened)
    if profile is not None:
        profile.for_model(opened.identity.to_dict())
    layer = shown_layer(arguments.layer, len(opened.blocks))
    prompts = [opened.chat.prompt_ids(question, arguments.mode) for question in arguments.question]
    warn_of_unknown_words(opened, arguments.question)
    with engine_of(opened, arguments.model) as engine:
        result = engine.generate(prompts, arguments.max_new_tokens, policy=policy, record=True, quiet=True)
    answers = list(_answers(opened, arguments.question, result))
    if arguments.json:
        norms = _norms(opened, prompts, result.tokens, layer)
        for answer, (tokens, norm) in zip(answers, norms, strict=True):
            answer |= {"pieces": opened.chat.pieces(tokens), "norms": norm.tolist()}
        print_json({"layer": layer, "answers": answers})
        return
    texts = None
    if has_colours():
        n_layers = len(opened.blocks)
        norms = _norms(opened, prompts, result.tokens, layer)
        texts = [shaded(opened.chat.pieces(tokens), norm, layer, n_layers) for tokens, norm in norms]
    blocks = []
    for i, answer in enumerate(answers):
        text = printable(answer["response"]) if texts is None else texts[i]
        lines = [f"> {answer['question']}"] if len(answers) > 1 else []
        blocks.append("\n".join([*lines, text, *([] if policy is None else [_deeds(answer)])]))
    print("\n\n".join(blocks))


def _norms(
    opened: OpenModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], layer: int
) -> list[tuple[Sequence[int], Float[np.ndarray, " token"]]]:
    """The responses without end tokens, and the norms of `layer` as the model reads them, without a policy."""
    from normprobe.tracing.norms import read_norms

    ends = opened.chat.eos_ids
    written = [tokens[:-1] if tokens[-1] in ends else tokens for tokens in responses]
    norms = read_norms(opened, [[*prompt, *tokens] for prompt, tokens in zip(prompts, written, strict=True)])
    return [
        (tokens, norm[layer, len(norm[layer]) - len(tokens) :])
        for tokens, norm in zip(written, norms, strict=True)
    ]


def _answers(opened: OpenModel, questions: tuple[str, ...], result: Generated) -> Iterator[dict[str, Any]]:
    """What is known of each answer, by the names that --json prints."""
    assert result.events is not None
    for i, (question, tokens) in enumerate(zip(questions, result.tokens, strict=True)):
        mine = result.events.request == i
        answer = {
            "question": question,
            "response": opened.chat.response_text(tokens),
            "tokens": len(tokens),
            "triggered": int(mine.sum()),
            "extra_passes": int(result.events.passes[mine].sum()),
        }
        probe = result.probes[i]
        yield answer if probe is None else answer | {"scores": probe["scores"]}


def _deeds(answer: dict[str, Any]) -> str:
    """What the policy did in one answer, and what it measured, on one line."""
    scores = (f"{name} {score:.4g}" for name, score in answer.get("scores", {}).items())
    did = f"acted on {answer['triggered']} states, {answer['extra_passes']} extra passes"
    return "; ".join([f"policy: {did}, {answer['tokens']} tokens", *scores])


def read_spec(text: str) -> Spec:
    """A policy's name, or its settings as JSON. Raises NormprobeError for JSON that is damaged."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json_value(text)
    except ValueError as error:
        raise NormprobeError(
            f"expected a policy as a name or as JSON, got {text!r} ({error}); correct it"
        ) from error


if __name__ == "__main__":
    sys.exit(run_main(main))
