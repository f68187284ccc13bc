"""What `normprobe importance` found: how many sentences matter, and the thought in which one matters most."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from normprobe.claims.evidence import Evidence
from normprobe.report.document import records
from normprobe.report.findings import Findings
from normprobe.runs.tables import Tables

CLAIM = "marks_critical_steps"
_WIDTH = 60


def text(tables: Tables) -> str:
    """The results for a terminal: a summary, one thought by sentence, and the note of the claim that reads them."""
    sentences, draws = tables.importance, tables.importance_draws
    known = sentences[sentences["total_variation"].notna()]
    head = (
        f"{len(sentences):,} sentences of {sentences['problem_id'].nunique()} thoughts, {len(draws):,} continuations, "
        f"{int(draws['n_tokens'].sum()):,} tokens written. "
    )
    if known.empty:
        return f"{head}No sentence was replaced and kept often enough to be judged: raise --draws or --temperature."
    excess = known["total_variation"] - known["chance"]
    head += (
        f"{len(known):,} were replaced and kept often enough. Replacing one moves the answers by a total variation of "
        f"{known['total_variation'].mean():.3f} on average, where chance alone gives {known['chance'].mean():.3f}; "
        f"{(excess > 0.1).mean():.0%} of the sentences exceed chance by 0.1."
    )
    response = known["response_id"].iloc[int(excess.to_numpy().argmax())]
    thought = sentences[sentences["response_id"] == response]
    parts = [textwrap.fill(head, 110), _table(thought)]
    evidence = _evidence(tables)
    if evidence is not None:
        parts.append(textwrap.fill(f"{CLAIM}: {evidence.verdict}. {evidence.note}", 110))
    return "\n\n".join(parts)


def document(tables: Tables) -> dict[str, Any]:
    """What JSON can hold: `continuations` and their `tokens`, the `sentences` as in importance.parquet, and the
    `evidence` on the claim that reads them (None if it was not judged)."""
    evidence, draws = _evidence(tables), tables.importance_draws
    return {
        "continuations": len(draws),
        "tokens": int(draws["n_tokens"].sum()),
        "sentences": records(tables.importance),
        "evidence": None if evidence is None else evidence.to_dict(),
    }


def _table(thought: pd.DataFrame) -> str:
    """The sentences of one thought with what became of the answer."""
    shown = pd.DataFrame(
        {
            "sentence": [textwrap.shorten(one, _WIDTH) for one in thought["text"]],
            "replaced": thought["n_replaced"].to_numpy(),
            "kept": thought["n_kept"].to_numpy(),
            "importance": (thought["total_variation"] - thought["chance"]).to_numpy(),
            "right if replaced": thought["right_replaced"].to_numpy(),
            "if kept": thought["right_kept"].to_numpy(),
        }
    )
    return f"{thought['problem_id'].iloc[0]}, where one sentence matters most:\n" + shown.to_string(
        index=False, float_format="{:.2f}".format, na_rep="–"
    )


def _evidence(tables: Tables) -> Evidence | None:
    """The evidence on the claim; None if it was not judged."""
    return next((one.evidence for one in Findings(tables.path) if one.claim.name == CLAIM), None)
