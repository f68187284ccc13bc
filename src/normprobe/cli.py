"""The command `normprobe`: finds the subcommand and hands it its arguments.

Each subcommand is a module's `main(argv) -> int | None`, imported only when it is asked for: `--help` must not
wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib import metadata

from normprobe.console import run_main

COMMANDS: dict[str, tuple[str, str]] = {
    "verify": ("normprobe.verify", "put the paper's claims to the test on a model and print the evidence"),
    "audit": (
        "normprobe.audit.__main__",
        "audit a finished run: null networks, planted effects, coverage, power",
    ),
    "generate": (
        "normprobe.generate",
        "answer questions, plainly or under a policy: ALRR, ERSS, suppression",
    ),
    "evaluate": (
        "normprobe.evaluate",
        "evaluate the three methods on a finished run's model, at equal compute",
    ),
    "lm-eval": (
        "normprobe.experiments.lm_eval",
        "run lm-evaluation-harness under a policy, with the testbed's tasks",
    ),
    "report": ("normprobe.report.__main__", "write the report of a finished run again"),
    "theorem": ("normprobe.theory.__main__", "check every step of the proof of the two-sided bound"),
    "train-testbed": (
        "normprobe.problems.testbed.train",
        "train the bundled model tiny-thinker from its recipe",
    ),
    "train-saes": ("normprobe.saes.study", "train the sparse autoencoders of a study (sae_training/*.yaml)"),
}
"""Subcommand: the module whose `main(argv)` it runs, and the line in the help."""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="normprobe",
        description="Does the norm of a hidden state tell when a language model reasons? "
        "Claims put to tests that could fail.",
        epilog="normprobe COMMAND --help lists the arguments of a command.",
    )
    parser.add_argument("--version", action="version", version=f"normprobe {metadata.version('normprobe')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    given = list(sys.argv[1:] if argv is None else argv)
    # Only the command is parsed here; the rest, --help included, is for the module's own parser.
    module, _ = COMMANDS[parser.parse_args(given[:1]).command]
    return run_main(lambda rest: importlib.import_module(module).main(rest), given[1:])
