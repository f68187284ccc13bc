"""The signals of a model that reads responses, one value per signal, layer and token: the stage traces/ of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.problems.source import Roles
from normprobe.runs.layout import FILES
from normprobe.tracing import signals
from normprobe.tracing.attention import attention_entropies
from normprobe.tracing.lens import read_lens
from normprobe.tracing.stream import Piece, check_finite, reading_plan, stream_states, token_offsets

Signals = dict[str, np.ndarray]
"""Name of the signal → float32 array [layer, token]; `surprisal` is [token]."""

TRACED = ("select", "measure")
"""The splits that are traced: the SAEs' own training problems never enter a claim."""
SINK_FACTOR = 10.0
"""A token is a sink in a layer when its norm exceeds this multiple of the layer's median, and a sink altogether when it
is one in half of the layers (massive activations, arXiv 2402.17762)."""

STATE_SIGNALS = {
    "norm": signals.norm,
    "entropy_softmax": signals.entropy_softmax,
    "entropy_rms": signals.entropy_rms,
    "entropy_energy": signals.entropy_energy,
}
"""Signals that need a token's state alone; `runs/layout.py` has a line, `claims/measure/readers.py` a name for each."""
_READ = ("output_entropy", "attention_entropy")


def fill_traces(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    responses: pd.DataFrame,
    problems: pd.DataFrame,
    *,
    roles: Roles | None = None,
    memory: int | None = None,
    lens_tokens: int | None = None,
    progress: bool = True,
) -> None:
    """Write tokens.parquet, and SUBJECT.safetensors for each subject. Resumes subject by subject.

    `subjects` maps names to models: "model" wrote the responses, the others (controls) read the same token ids.
    Raises NormprobeError if a control has another tokenizer, or as `replay` does.
    """
    for subject, opened in subjects.items():
        if opened.identity.tokenizer != subjects["model"].identity.tokenizer:
            raise NormprobeError(
                f"expected subject '{subject}' to share the model's tokenizer, got another; "
                "the same token ids would mean other text: use a checkpoint of the same model"
            )
    for subject, opened in subjects.items():
        file = FILES[f"signals/{subject}"]
        if (folder / file.name).exists():
            continue
        values = replay(
            opened, responses, subject=subject, memory=memory, lens_tokens=lens_tokens, progress=progress
        )
        if subject == "model":
            # Before the signals: where those are, the table is.
            FILES["tokens"].write(folder, token_table(opened, responses, problems, values["norm"], roles))
        file.write(folder, values)


def trace(
    opened: OpenModel,
    responses: pd.DataFrame,
    problems: pd.DataFrame,
    *,
    roles: Roles | None = None,
    memory: int | None = None,
    lens_tokens: int | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, Signals]:
    """The token table of the traced responses, and the signals of the model that wrote them, in the same order.

    Raises NormprobeError as `replay` does.
    """
    values = replay(opened, responses, memory=memory, lens_tokens=lens_tokens, progress=progress)
    return token_table(opened, responses, problems, values["norm"], roles), values


def replay(
    opened: OpenModel,
    responses: pd.DataFrame,
    *,
    subject: str = "model",
    memory: int | None = None,
    lens_tokens: int | None = None,
    progress: bool = True,
) -> Signals:
    """The signals of a model that reads the responses' token ids, whoever wrote them. States are not kept.

    memory: bytes above the weights that reading may take, as `stream_states` has it. lens_tokens: at how many tokens
    the logit lens reads the layers below the last; at the others their `output_entropy` is NaN. `attention_entropy` is
    NaN in layers without attention, and absent where no layer has any. `surprisal` is NaN at position 0.

    Raises NormprobeError if there is nothing to read, a token id lies outside the vocabulary, or a norm is NaN or
    infinite (naming the layer and `subject`).
    """
    offsets, n = token_offsets(responses, TRACED)
    if n == 0:
        raise NormprobeError(
            f"expected responses in the splits {', '.join(TRACED)}, got none; give more problems"
        )
    size = opened.model.config.get_text_config().vocab_size
    if (largest := max(int(max(ids)) for ids in responses["token_ids"])) >= size:
        raise NormprobeError(
            f"expected token ids below the vocabulary of subject '{subject}' ({size}), got {largest}; "
            "replay with a model of the same tokenizer"
        )
    last = len(opened.blocks) - 1
    out = {name: np.full((last + 1, n), np.nan, dtype=np.float32) for name in (*STATE_SIGNALS, *_READ)}
    out |= {"surprisal": np.full(n, np.nan, dtype=np.float32)}
    scratch = reading_plan(opened, responses, TRACED, memory).scratch
    lens = lens_sample(n, lens_tokens)
    following, has_next = _following(responses)

    def visit(piece: Piece) -> None:
        check_finite(piece, subject)
        layer, column = piece.layer, offsets[piece.response_index] + piece.position
        for name, signal in STATE_SIGNALS.items():
            out[name][layer, column] = signal(piece.h).cpu().numpy()
        if layer in attention:
            entropy = attention[layer]
            out["attention_entropy"][layer, column] = entropy[piece.valid.to(entropy.device)].cpu().numpy()
        # The last layer's logits are needed at every token for its surprisal.
        read = np.flatnonzero(lens[column] | (layer == last))
        h, column = piece.h[torch.from_numpy(read).to(piece.h.device)], column[read]
        entropy, surprisal = read_lens(opened.anatomy, h, torch.from_numpy(following[column]), scratch)
        out["output_entropy"][layer, column] = entropy.cpu().numpy()
        if layer == last:
            next_, values = column[has_next[column]] + 1, surprisal.cpu().numpy()
            out["surprisal"][next_] = values[has_next[column]]
            bar.update(len(piece.position))

    with (
        attention_entropies(opened, scratch) as attention,
        tqdm(total=n, desc=f"trace {subject}", unit="token", unit_scale=True, disable=not progress) as bar,
    ):
        stream_states(opened, responses, TRACED, visit, memory)
    if np.isnan(out["attention_entropy"]).all():
        del out["attention_entropy"]
    return out


def lens_sample(n: int, chosen: int | None) -> Bool[np.ndarray, " token"]:
    """The tokens at which the logit lens reads every layer: `chosen` of n, the same for all networks; None: all."""
    sample = np.ones(n, dtype=bool)
    if chosen is not None and chosen < n:
        sample[torch.randperm(n, generator=torch.Generator().manual_seed(0)).numpy()[chosen:]] = False
    return sample


def _following(responses: pd.DataFrame) -> tuple[Int[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
    """The token after each of the token table, and whether its response has one."""
    chosen = responses["token_ids"][responses["split"].isin(list(TRACED))]
    ends = np.cumsum(chosen.map(len).to_numpy(dtype=np.int64))
    has_next = np.ones(ends[-1], dtype=bool)
    has_next[ends - 1] = False
    return np.roll(np.concatenate(chosen.to_list()).astype(np.int64), -1), has_next


def token_table(
    opened: OpenModel,
    responses: pd.DataFrame,
    problems: pd.DataFrame,
    norm: Float[np.ndarray, "layer token"],
    roles: Roles | None = None,
) -> pd.DataFrame:
    """One row per token of each traced response, in table order, positions ascending: traces/tokens.parquet.

    `norm` is that of the model which wrote the responses: it decides which tokens are sinks.
    """
    chosen = responses[responses["split"].isin(list(TRACED))]
    lengths = chosen["token_ids"].map(len).to_numpy(dtype=np.int64)
    of_response = np.repeat(np.arange(len(chosen)), lengths)
    keys = ["response_id", "problem_id", "split", "mode", "sample"]
    table = chosen[keys].iloc[of_response].reset_index(drop=True)
    facts = problems.set_index("problem_id").loc[table["problem_id"]]
    table.insert(3, "domain", facts["domain"].to_numpy())
    difficulty = facts["difficulty"].convert_dtypes()  # whole numbers stay so beside missing ones
    table.insert(4, "difficulty", difficulty.to_numpy())
    table["position"] = np.concatenate([np.arange(length) for length in lengths])
    table["token_id"] = np.concatenate(chosen["token_ids"].to_list()).astype(np.int64)
    distinct, inverse = np.unique(table["token_id"].to_numpy(), return_inverse=True)
    texts = np.array([opened.tokenizer.decode([int(i)]) for i in distinct], dtype=object)
    table["token"] = texts[inverse]
    segment, role = (np.full(len(table), value, dtype=object) for value in ("format", None))
    for response, end, n in zip(chosen.to_dict("records"), np.cumsum(lengths), lengths, strict=True):
        written = slice(end - n + response["n_prompt"], end)
        segment[end - n : written.start] = "prompt"
        for span in ("thought", "answer"):  # filler's dots are a thought although they stand in the prompt
            if response[f"{span}_start"] >= 0:
                segment[end - n + response[f"{span}_start"] : end - n + response[f"{span}_end"]] = span
        if roles is not None:
            role[written] = roles(table["token"].iloc[written].tolist())
    table["segment"], table["role"] = segment, role
    table["sink"] = sinks(norm, table["position"].to_numpy())
    return table


def sinks(
    norm: Float[np.ndarray, "layer token"], position: Int[np.ndarray, " token"]
) -> Bool[np.ndarray, " token"]:
    """The tokens with massive activations (see `SINK_FACTOR`); the first token of a sequence is always one."""
    above = norm > SINK_FACTOR * np.median(norm, axis=1, keepdims=True)
    return (above.mean(axis=0) >= 0.5) | (position == 0)
