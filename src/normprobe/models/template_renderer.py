"""Chat templates rendered in a process apart, which bounds their time and memory (`template_process`)."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from typing import IO, Any, cast

from normprobe.models import template_process
from normprobe.models.template_process import MEMORY, SECONDS


class TemplateRenderer:
    """The process that renders, started with the first request and again after one that ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The reply to a request (see `template_process.answer`). Raises ValueError that says why there is none."""
        # Templates see plain types only; of others Transformers shows them the name, too.
        line = json.dumps(request, default=lambda value: f"<{type(value).__name__}>")
        with self._lock:
            reply = self._reply(line)
        if not reply:
            raise ValueError(f"more than {SECONDS} s or {MEMORY >> 30} GiB for it")
        content = json.loads(reply)
        if "error" in content:
            raise ValueError(content["error"])
        return content

    def _reply(self, line: str) -> str:
        """The reply as it is written; empty if the process has ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: nothing in the directory where a user stands is taken for a module.
                [sys.executable, "-P", "-m", template_process.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the process that asks
            )
            self._end = weakref.finalize(self, _end, self._process, os.getpid())
        process, reply = self._process, ""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:  # it has ended since
            pass
        finally:
            if not reply:  # it ended, or this process was interrupted before it answered
                self._end()
                self._process = None
        return reply


def _end(process: subprocess.Popen[str], owner: int) -> None:
    if os.getpid() != owner:  # a copy of the process that started it
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            cast(IO[str], pipe).close()


@functools.cache
def _renderer(owner: int) -> TemplateRenderer:
    return TemplateRenderer()


def renderer() -> TemplateRenderer:
    """The renderer of this process: starting one takes a second. A forked process gets its own."""
    return _renderer(os.getpid())
