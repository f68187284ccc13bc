"""`normprobe generate`: answer questions, plainly or under a policy, and report what the policy did.

The bundled model knows questions of the testbed's form, such as "math : a= 4 ; b: a +9 ; ? b".
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from normprobe.config import ModelSettings, ThinkingSettings
from normprobe.console import parse, run_main
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import open_for, use_one_thread_if_tiny
from normprobe.policies.spec import Spec, build


@dataclass(frozen=True)
class GenerateCommand:
    """Answer questions, plainly or under a policy: a JSON line for each, greedy."""

    question: Annotated[Positional[tuple[str, ...]], arg(metavar="QUESTION")]
    """questions, each one argument"""
    policy: Annotated[str | None, arg(metavar="NAME|JSON")] = None
    """a name ("alrr") or JSON ({"policy": "alrr", …}); without it the plain model answers"""
    profile: Annotated[Path | None, arg(metavar="FILE")] = None
    """layer_profile.json of a run on this model"""
    mode: Literal["think", "no_think"] = "think"
    """whether the model is to think"""
    max_new_tokens: int = 160
    """limit of a response"""
    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe generate`: one JSON line per question, greedy."""
    arguments = parse(GenerateCommand, argv, "generate")
    if not arguments.question:
        raise NormprobeError("expected a question, got none; give one or more, each as one argument")
    spec = None if arguments.policy is None else read_spec(arguments.policy)
    profile = None if arguments.profile is None else LayerProfile.load(arguments.profile)
    if arguments.max_new_tokens < 1:
        raise NormprobeError(f"expected at least one new token, got {arguments.max_new_tokens}; ask for more")
    policy = None if spec is None else build(spec, profile)
    opened = open_for(arguments.model, arguments.thinking)
    use_one_thread_if_tiny(opened)
    if profile is not None:
        profile.for_model(opened.identity.to_dict())
    prompts = [opened.chat.prompt_ids(question, arguments.mode) for question in arguments.question]
    result = HfEngine(opened).generate(
        prompts, arguments.max_new_tokens, policy=policy, record=True, quiet=True
    )
    assert result.events is not None
    for i, (question, tokens) in enumerate(zip(arguments.question, result.tokens, strict=True)):
        mine = result.events.request == i
        line = {
            "question": question,
            "response": opened.chat.response_text(tokens),
            "tokens": len(tokens),
            "triggered": int(mine.sum()),
            "extra_passes": int(result.events.passes[mine].sum()),
        }
        if (probe := result.probes[i]) is not None:
            line["scores"] = probe["scores"]
        print(json.dumps(line, ensure_ascii=False))


def read_spec(text: str) -> Spec:
    """A policy's name, or its settings as JSON. Raises NormprobeError for JSON that is damaged."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise NormprobeError(
            f"expected a policy as a name or as JSON, got {text!r} ({error}); correct it"
        ) from error


if __name__ == "__main__":
    sys.exit(run_main(main))
