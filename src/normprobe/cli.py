"""The command `normprobe`: finds the subcommand and hands it its arguments.

A subcommand's module is imported only when it is asked for: `--help` must not wait for torch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pkgutil import resolve_name
from typing import Annotated, Any, Union

from normprobe.console import run_main

COMMANDS: dict[str, tuple[str, str, str]] = {
    "verify": (
        "verify:main",
        "verify:VerifyCommand",
        "put the paper's claims to the test on a model and print the evidence",
    ),
    "train-saes": (
        "verify:train_saes",
        "verify:TrainSaesCommand",
        "train the sparse autoencoders of a study",
    ),
    "profile": ("verify:profile", "verify:ProfileCommand", "measure the layer profile that steers a model"),
    "evaluate": (
        "evaluate:main",
        "evaluate:EvaluateCommand",
        "try the three methods on a run's model, at equal compute",
    ),
    "audit": (
        "evaluate:audit",
        "evaluate:AuditCommand",
        "audit a run: null networks, planted effects, coverage, power",
    ),
    "features": (
        "evaluate:features",
        "evaluate:FeaturesCommand",
        "write pages on reasoning features: do single tokens trigger them?",
    ),
    "dictionaries": (
        "evaluate:dictionaries",
        "evaluate:DictionariesCommand",
        "evaluate a run's dictionaries on held-out states: loss recovered, stability",
    ),
    "importance": (
        "evaluate:importance",
        "evaluate:ImportanceCommand",
        "write thoughts anew from before each sentence: which ones do the answers hang on?",
    ),
    "paradigm": (
        "evaluate:paradigm",
        "evaluate:ParadigmCommand",
        "compare a run of a model trained by RL with one trained by SFT: is its late spike sharper?",
    ),
    "compare": (
        "report.compare:main",
        "report.compare:CompareCommand",
        "print verdicts, estimates and margins of several runs side by side",
    ),
    "models": (
        "bundled_models:main",
        "bundled_models:ModelsCommand",
        "list the models that come with the package",
    ),
    "report": ("report.__main__:main", "report.__main__:ReportCommand", "write the report of a run again"),
    "figures": (
        "report.draw_figures:main",
        "report.draw_figures:FiguresCommand",
        "draw the figures of a run again, as PDF and PNG",
    ),
    "generate": (
        "generate:main",
        "generate:GenerateCommand",
        "answer questions, plainly or under a policy: ALRR, ERSS, suppression",
    ),
    "trace": (
        "trace_texts:main",
        "trace_texts:TraceCommand",
        "show norm, entropies and surprisal of texts, token by token",
    ),
    "lm-eval": (
        "experiments.lm_eval:main",
        "",
        "run lm-evaluation-harness under a policy, with the testbed's tasks",
    ),
    "doctor": (
        "doctor:main",
        "doctor:DoctorCommand",
        "tell what is found in a model: how it thinks, and what a run would cost",
    ),
    "theorem": (
        "theory.__main__:main",
        "theory.__main__:TheoremCommand",
        "check every step of the proof of the two-sided bound",
    ),
    "train-testbed": (
        "training.tiny_thinker.train:main",
        "training.tiny_thinker.train:TrainCommand",
        "train the bundled model tiny-thinker from its recipe",
    ),
}
"""Subcommand: the function `(argv) -> int | None` of the package that it runs, the dataclass of its options ("" for a
command line that is not ours), and the line in the help."""
SHELLS = ("bash", "zsh", "tcsh")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="normprobe",
        description="Does the norm of a hidden state tell when a language model reasons? "
        "Claims put to tests that could fail.",
        epilog="normprobe COMMAND --help lists the arguments of a command.",
    )
    parser.add_argument("--version", action="version", version=f"normprobe {metadata.version('normprobe')}")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_PrintCompletion,
        help="print what completes commands, options and paths in a shell, and exit",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (*_, summary) in COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    given = list(sys.argv[1:] if argv is None else argv)
    known = [*COMMANDS, *parser._option_string_actions]
    if given and not any(name.startswith(given[0].partition("=")[0]) for name in known):
        meant = get_close_matches(given[0], known, n=2)
        parser.error(
            f"expected a command, got {given[0]!r}"
            + (f"; perhaps you meant {' or '.join(meant)}" if meant else "")
        )
    # Only the command is parsed here; the rest, --help included, is for the module's own parser.
    function, *_ = COMMANDS[parser.parse_args(given[: 1 + (given[:1] == ["--print-completion"])]).command]
    return run_main(lambda rest: resolve_name(f"normprobe.{function}")(rest), given[1:])


class _PrintCompletion(argparse.Action):
    """Prints what completes commands, options and paths in a shell, and exits. It imports every command."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, shell: Any, option: Any = None
    ) -> None:
        import tyro

        choices = [
            Annotated[
                resolve_name(f"normprobe.{options}") if options else _NoOptions,
                tyro.conf.subcommand(name, description=summary),
            ]
            for name, (_, options, summary) in COMMANDS.items()
        ]
        # This one of tyro's backends writes them by shtab, which completes paths too.
        before = tyro._experimental_options["backend"]
        tyro._experimental_options["backend"] = "argparse"
        try:
            whole: Any = Union[tuple(choices)]  # noqa: UP007
            tyro.cli(whole, prog=parser.prog, args=["--tyro-write-completion", shell, "-"])
        finally:
            tyro._experimental_options["backend"] = before


@dataclass(frozen=True)
class _NoOptions:
    """The options of a command line that is not ours."""
