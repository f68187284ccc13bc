"""`normprobe generate`: answer questions, plainly or under a policy, and report what the policy did.

The bundled model knows questions of the testbed's form, such as "math : a= 4 ; b: a +9 ; ? b".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from normprobe.console import run_main
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import BUNDLED
from normprobe.models.open import open_model, use_one_thread_if_tiny
from normprobe.policies.spec import Spec, build
from normprobe.thinking_formats import MODES


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe generate`: one JSON line per question, greedy."""
    parser = argparse.ArgumentParser(
        prog="normprobe generate", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("question", nargs="+", help="questions, each one argument")
    parser.add_argument("--model", default=BUNDLED, help=f"directory or hub id ({BUNDLED})")
    parser.add_argument("--policy", help='none by default; a name ("alrr") or JSON ({"policy": "alrr", …})')
    parser.add_argument("--profile", type=Path, help="layer_profile.json of a run on this model")
    parser.add_argument("--mode", choices=MODES[:2], default="think")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    arguments = parser.parse_args(argv)
    spec = None if arguments.policy is None else read_spec(arguments.policy)
    profile = None if arguments.profile is None else LayerProfile.load(arguments.profile)
    if arguments.max_new_tokens < 1:
        raise NormprobeError(f"expected at least one new token, got {arguments.max_new_tokens}; ask for more")
    policy = None if spec is None else build(spec, profile)
    opened = open_model(arguments.model, device=arguments.device)
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
