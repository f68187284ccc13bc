"""The command `normprobe`: finds the subcommand and hands it its arguments.

A subcommand's module is imported only when it is asked for: `--help` must not wait for torch.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pkgutil import resolve_name

from normprobe.console import run_main

COMMANDS: dict[str, tuple[str, str]] = {
    "verify": ("verify:main", "put the paper's claims to the test on a model and print the evidence"),
    "train-saes": ("verify:train_saes", "train the sparse autoencoders of a study"),
    "profile": ("verify:profile", "measure the layer profile that steers a model"),
    "evaluate": ("evaluate:main", "try the three methods on a run's model, at equal compute"),
    "audit": ("evaluate:audit", "audit a run: null networks, planted effects, coverage, power"),
    "features": ("evaluate:features", "write pages on reasoning features: do single tokens trigger them?"),
    "dictionaries": (
        "evaluate:dictionaries",
        "evaluate a run's dictionaries on held-out states: loss recovered, stability",
    ),
    "importance": (
        "evaluate:importance",
        "write thoughts anew from before each sentence: which ones do the answers hang on?",
    ),
    "compare": ("report.compare:main", "print verdicts, estimates and margins of several runs side by side"),
    "models": ("bundled_models:main", "list the models that come with the package"),
    "report": ("report.__main__:main", "write the report of a run again"),
    "generate": ("generate:main", "answer questions, plainly or under a policy: ALRR, ERSS, suppression"),
    "lm-eval": (
        "experiments.lm_eval:main",
        "run lm-evaluation-harness under a policy, with the testbed's tasks",
    ),
    "doctor": (
        "doctor:main",
        "tell what is found in a model: how it thinks, and what a run would cost",
    ),
    "theorem": ("theory.__main__:main", "check every step of the proof of the two-sided bound"),
    "train-testbed": ("problems.testbed.train:main", "train the bundled model tiny-thinker from its recipe"),
}
"""Subcommand: the function `(argv) -> int | None` of the package that it runs, and the line in the help."""


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
    function, _ = COMMANDS[parser.parse_args(given[:1]).command]
    return run_main(lambda rest: resolve_name(f"normprobe.{function}")(rest), given[1:])
