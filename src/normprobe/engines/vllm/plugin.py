"""The entry point of `vllm.general_plugins`, which vLLM calls in each of its processes.

Three kinds of processes run code of this package: the one that takes requests (frontend/), the engine core (core/) and
the workers (worker/). What of vLLM is wrapped, and by which function, is the table in symbols.py. An engine without a
configuration of normprobe (see frontend/variables.py) behaves as without the plugin.
"""

from __future__ import annotations

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.symbols import Use


def register() -> None:
    """Wrap vLLM's methods, once per process.

    Of an unknown version only the making of an engine's configuration is wrapped: it refuses to start with normprobe.
    """
    patches.apply(Use.ENTRY)
    if patches.version() is not None:
        patches.apply(Use.EVERY_PROCESS)
