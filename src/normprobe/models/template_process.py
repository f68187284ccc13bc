"""The program that renders chat templates: `python -m normprobe.models.template_process`, one JSON line in, one out.

A chat template is a program that came with a model. Jinja's sandbox keeps it from files and from the interpreter, but
not from looping or growing without end, already where constants are folded, before anything is rendered. A process can
be bounded from outside: a request has `SECONDS` of computing, after which the kernel ends this process, and `MEMORY`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

SECONDS = 5
MEMORY = 2**30
LONGEST = 2**22
"""Characters of a prompt."""
TODAY = datetime.datetime(2025, 1, 1)
"""What a template that asks for the date gets, so that a run replays."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Of `{"template": …}` its source with the date filled in, and the variables that it reads; with `messages`,
    `prompt` and `keywords` besides, the text that Transformers makes of them."""
    from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

    template = request["template"]
    if "messages" not in request:
        from jinja2 import meta

        source = re.sub(
            r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda call: repr(TODAY.strftime(call[2])), template
        )
        parsed = _compile_jinja_template(source).environment.parse(source)
        return {"source": source, "variables": sorted(meta.find_undeclared_variables(parsed))}
    (text,), _ = render_jinja_template(
        conversations=[request["messages"]],
        chat_template=template,
        add_generation_prompt=request["prompt"],
        **request["keywords"],
    )
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters, more than {LONGEST:,}")
    text.encode("utf-8")  # half of a surrogate pair is no text
    return {"text": text}


def main() -> None:
    """Answer requests until there are no more."""
    import transformers.utils.chat_template_utils  # noqa: F401  what takes a second is no part of a request

    with contextlib.suppress(OSError, ValueError):  # no /proc outside of Linux
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nobody handles it: at its end the process ends
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__} ({str(error)[:500]})"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
