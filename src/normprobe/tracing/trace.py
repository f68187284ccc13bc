"""The signals of a model that reads responses, one value per signal, layer and token: the stage traces/ of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import nn
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.problems.source import Roles
from normprobe.runs.layout import FILES
from normprobe.tracing import signals
from normprobe.tracing.stream import Batch, check_finite, stream_states, token_offsets

Signals = dict[str, np.ndarray]
"""Name of the signal → float32 array [layer, token]; `surprisal` is [token]."""

TRACED = ("select", "measure")
"""The splits that are traced: the SAEs' own training problems never enter a claim."""
SINK_FACTOR = 10.0
"""A token is a sink in a layer when its norm exceeds this multiple of the layer's median, and a sink altogether when it
is one in half of the layers (massive activations, arXiv 2402.17762)."""

_HIDDEN = {
    "norm": signals.norm,
    "entropy_softmax": signals.entropy_softmax,
    "entropy_rms": signals.entropy_rms,
    "entropy_energy": signals.entropy_energy,
}
_LOGITS_AT_ONCE = 2**23


def fill_traces(
    folder: Path,
    subjects: Mapping[str, OpenModel],
    responses: pd.DataFrame,
    problems: pd.DataFrame,
    *,
    roles: Roles | None = None,
    batch_size: int = 64,
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
        values = replay(opened, responses, subject=subject, batch_size=batch_size, progress=progress)
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
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[pd.DataFrame, Signals]:
    """The token table of the traced responses, and the signals of the model that wrote them, in the same order.

    Raises NormprobeError as `replay` does.
    """
    values = replay(opened, responses, batch_size=batch_size, progress=progress)
    return token_table(opened, responses, problems, values["norm"], roles), values


def replay(
    opened: OpenModel,
    responses: pd.DataFrame,
    *,
    subject: str = "model",
    batch_size: int = 64,
    progress: bool = True,
) -> Signals:
    """The signals of a model that reads the responses' token ids, whoever wrote them. States are not kept.

    `attention_entropy` is there only if the model was opened with eager attention. `surprisal` is NaN at position 0.
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
    n_layers = len(opened.blocks)
    out = {name: np.full((n_layers, n), np.nan, dtype=np.float32) for name in (*_HIDDEN, "output_entropy")}
    out |= {"surprisal": np.full(n, np.nan, dtype=np.float32)}
    with (
        _attention_entropies(opened) as attention,
        tqdm(total=n, desc=f"trace {subject}", unit="token", unit_scale=True, disable=not progress) as bar,
    ):
        for batch in stream_states(opened, responses, TRACED, batch_size):
            check_finite(batch, range(n_layers), subject)
            column = offsets[batch.response_index] + batch.position
            for name, signal in _HIDDEN.items():
                out[name][:, column] = torch.stack([signal(h) for h in batch.states]).cpu().numpy()
            _read_logits(opened, responses, batch, column, out)
            if attention:
                row = np.cumsum(batch.position == 0) - 1  # of the padded batch
                values = out.setdefault("attention_entropy", np.empty((n_layers, n), dtype=np.float32))
                values[:, column] = [layer.cpu().numpy()[row, batch.position] for layer in attention]
            bar.update(len(column))
    return out


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


def _read_logits(
    opened: OpenModel, responses: pd.DataFrame, batch: Batch, column: Int[np.ndarray, " n"], out: Signals
) -> None:
    """Write output entropies, and the surprisal of each token from the last layer's logits at the token before it."""
    ids = np.concatenate([responses["token_ids"].iloc[i] for i in batch.response_index[batch.position == 0]])
    following = torch.from_numpy(np.roll(ids, -1).astype(np.int64)).to(batch.states.device)
    has_next = np.append(batch.position[1:] > 0, False)
    size = max(1, _LOGITS_AT_ONCE // opened.model.config.get_text_config().vocab_size)
    for start in range(0, len(column), size):
        part = slice(start, start + size)
        for layer, h in enumerate(batch.states):
            logits = opened.unembed(h[part])
            out["output_entropy"][layer, column[part]] = signals.output_entropy(logits).cpu().numpy()
            if layer == len(batch.states) - 1:
                values = signals.surprisal(logits, following[part]).cpu().numpy()
                out["surprisal"][column[part][has_next[part]] + 1] = values[has_next[part]]


@contextmanager
def _attention_entropies(opened: OpenModel) -> Iterator[list[Float[torch.Tensor, "row position"]]]:
    """A list of each layer's attention entropies in the latest forward pass; it stays empty without eager attention.

    Reduced inside the hook: all layers' weights at once would be layers × heads × length² floats per response.
    """
    latest: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        if len(latest) == len(opened.blocks):
            latest.clear()
        latest.append(signals.attention_entropy(output[1]))

    attentions = [
        module for block in opened.blocks for name, module in block.named_children() if name == "self_attn"
    ]
    eager = opened.model.config.get_text_config()._attn_implementation == "eager"
    handles = [module.register_forward_hook(keep) for module in attentions] if eager else []
    try:
        yield latest
    finally:
        for handle in handles:
            handle.remove()
