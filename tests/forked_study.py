"""A study in a process that is forked from one with torch and SAELens imported: it starts at once."""

import multiprocessing
import sys
from multiprocessing.process import BaseProcess

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["normprobe.pipeline", "normprobe.engines.hf", "normprobe.saes.stages", "sae_lens"]
)


def start(arguments: list[str]) -> BaseProcess:
    """`normprobe ARGUMENTS`, running."""
    process = _FORKS.Process(target=_run, args=(arguments,))
    process.start()
    return process


def _run(arguments: list[str]) -> None:
    from normprobe.cli import main

    sys.exit(main(arguments))
