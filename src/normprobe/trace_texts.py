"""`normprobe trace`: the signals of texts, token by token, as `normprobe.trace` gives them in Python."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional

from normprobe.console import parse, print_json, run_main
from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.report.shaded_text import printable
from normprobe.runs.atomic import atomic_write, refusing_disk_errors
from normprobe.settings import optional

# Whatever is heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    import pandas as pd

    from normprobe.models.model import OpenModel

SHOWN = ["position", "token", "segment", "norm", "output_entropy", "surprisal"]
"""Columns of the table on the screen."""
FORMATS = (".csv", ".parquet")


@dataclass(frozen=True)
class TraceCommand:
    """Show the signals of texts, token by token: norm, entropies and surprisal. What is printed is of one layer; --out
    keeps all layers."""

    text: Annotated[Positional[tuple[str, ...]], optional(metavar="TEXT")]
    """texts as the model is to read them, each one argument"""
    ask: Annotated[Literal["think", "no_think"] | None, optional(metavar="{think,no_think}")] = None
    """take the texts for questions, which the model answers first, greedy; what it then reads is the conversation"""
    max_new_tokens: int = 160
    """limit of a response"""
    layer: Annotated[int | None, optional(metavar="INT")] = None
    """the layer that is printed, from 0 (the last but one)"""
    out: Annotated[Path | None, optional(metavar="FILE")] = None
    """write the whole table there, as .csv or .parquet: a row per text, token and layer (print one layer)"""
    json: bool = False
    """print one JSON document instead of text"""
    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe trace`: a table for each text, one JSON document, or a file."""
    given = parse(TraceCommand, argv, "trace")
    _check(given)
    from normprobe.models.open import open_for, use_one_thread_if_tiny
    from normprobe.models.unknown_words import warn_of_unknown_words
    from normprobe.tracing.norms import shown_layer
    from normprobe.tracing.texts import trace

    given.model.check_engine()
    opened = open_for(given.model, given.thinking)
    use_one_thread_if_tiny(opened)
    warn_of_unknown_words(opened, given.text)
    layer, n_layers = shown_layer(given.layer, len(opened.blocks)), len(opened.blocks)
    texts = given.text if given.ask is None else _conversations(opened, given)
    table = trace(opened, list(texts), progress=False)
    if given.out is not None:
        _write(table, given.out)
        print(f"{given.out}: {len(table):,} rows, {n_layers} layers of {len(table) // n_layers:,} tokens")
        return
    shown = table[table["layer"] == layer]
    if given.json:
        rows = shown.drop(columns="layer").astype(object)
        print_json({"layer": layer, "tokens": rows.where(rows.notna(), None).to_dict("records")})
        return
    print(f"after layer {layer} of 0…{n_layers - 1}; entropy and surprisal in nats")
    for number, (text, rows) in enumerate(shown.groupby("text")):
        if number or len(texts) > 1:
            print(f"\ntext {text}")
        print(rows[SHOWN].assign(token=[_word(token) for token in rows["token"]]).to_string(index=False))


def _check(given: TraceCommand) -> None:
    if not given.text:
        raise NormprobeError("expected a text, got none; give one or more, each as one argument")
    if given.max_new_tokens < 1:
        raise NormprobeError(f"expected at least one new token, got {given.max_new_tokens}; ask for more")
    if given.out is None:
        return
    if given.json or given.layer is not None:
        other = "--json" if given.json else "--layer"
        raise NormprobeError(f"expected one form of output, got --out and {other}; choose one")
    if given.out.suffix not in FORMATS or given.out.is_dir() or not given.out.parent.is_dir():
        raise NormprobeError(
            f"expected a file {' or '.join(FORMATS)} in a folder that is there, got {given.out}; correct it"
        )


def _conversations(opened: OpenModel, given: TraceCommand) -> list[list[int]]:
    """The tokens of each question as the model was asked it, and of its answer."""
    from normprobe.engines.engine_choice import engine_of

    assert given.ask is not None
    prompts = [opened.chat.prompt_ids(question, given.ask) for question in given.text]
    with engine_of(opened, given.model) as engine:
        answers = engine.generate(prompts, given.max_new_tokens, quiet=True).tokens
    return [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]


def _word(token: str) -> str:
    """A token on one line: spaces at its ends and line breaks can be seen."""
    return printable(token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·"))


def _write(table: pd.DataFrame, out: Path) -> None:
    with refusing_disk_errors(out), atomic_write(out) as unfinished:
        if out.suffix == ".csv":
            table.to_csv(unfinished, index=False)
        else:
            table.to_parquet(unfinished, index=False)


if __name__ == "__main__":
    sys.exit(run_main(main))
