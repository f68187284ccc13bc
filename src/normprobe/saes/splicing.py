"""What a model predicts when the states of one layer are replaced: the loss of its responses, and the KL divergence.

A dictionary is spliced in by putting its reconstruction of every state in that state's place, at one layer, in prompt
and response. Sinks keep their own states, the first token among them: dictionaries are not trained on the massive
activations of first tokens (`normprobe.saes.activations.draw_tokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from normprobe.models.model import OpenModel
from normprobe.saes.activations import PAIRED
from normprobe.saes.dictionary import Dictionary
from normprobe.saes.fidelity import Fidelity
from normprobe.tracing.stream import Piece, check_finite, reading_plan, stream_states, token_offsets

SPLIT = "measure"
LEAST_LOSS = 0.05
"""Nats that an ablation has to cost before a share of them can be recovered."""
_FINAL_BYTES = 2**28
_FEWEST_ROWS = 64
Replace = Callable[[Float[torch.Tensor, "n d"], Int[np.ndarray, " n"]], Float[torch.Tensor, "n d"]]
"""From states and their tokens (rows of a `MeasuredResponses`), what takes their place."""


@dataclass(frozen=True)
class MeasuredResponses:
    """The held-out responses of the modes `PAIRED`, with which of their tokens, one after another, are sinks."""

    responses: pd.DataFrame
    sink: Bool[np.ndarray, " token"]

    @classmethod
    def of(cls, responses: pd.DataFrame, tokens: pd.DataFrame, n_problems: int) -> MeasuredResponses:
        """The first n problems of the split "measure". `tokens`: traces/tokens.parquet of these responses."""
        measured = responses[(responses["split"] == SPLIT) & responses["mode"].isin(list(PAIRED))]
        problems = measured["problem_id"].drop_duplicates().head(n_problems)
        chosen = measured[measured["problem_id"].isin(problems)].reset_index(drop=True)
        return cls(chosen, tokens.loc[tokens["response_id"].isin(chosen["response_id"]), "sink"].to_numpy())

    def parts(self, tokens: int) -> Iterator[MeasuredResponses]:
        """Consecutive responses of about so many tokens together, at least one."""
        lengths = self.responses["token_ids"].map(len).to_numpy(dtype=np.int64)
        ends = np.cumsum(lengths)
        part = (ends - 1) // max(tokens, 1)
        for number in np.unique(part):
            rows = np.flatnonzero(part == number)
            sink = self.sink[ends[rows[0]] - lengths[rows[0]] : ends[rows[-1]]]
            yield MeasuredResponses(self.responses.iloc[rows].reset_index(drop=True), sink)

    @cached_property
    def _tokens(self) -> pd.DataFrame:
        """For each token its mode, and whether it lies in thought or answer, or is one that the model wrote."""
        lengths = self.responses["token_ids"].map(len).to_numpy(dtype=np.int64)
        of = self.responses.loc[np.repeat(np.arange(len(lengths)), lengths)].reset_index(drop=True)
        position = np.concatenate([np.arange(length) for length in lengths])
        spans = ((of[f"{span}_start"], of[f"{span}_end"]) for span in ("thought", "answer"))
        inside = [(start <= position) & (position < end) for start, end in spans]
        return pd.DataFrame(
            {
                "id": np.concatenate(self.responses["token_ids"].to_list()).astype(np.int64),
                "mode": of["mode"].map(PAIRED.index),
                "read": inside[0] | inside[1],
                "written": position >= of["n_prompt"],
            }
        )

    @property
    def mode_read(self) -> Int[np.ndarray, " token"]:
        """The mode (an index of `PAIRED`) of each state that quality is measured on: of thought and answer, but sinks;
        −1 for the others."""
        return np.where(self._tokens["read"] & ~self.sink, self._tokens["mode"], -1)

    @cached_property
    def written(self) -> Int[np.ndarray, " written"]:
        """The tokens that the model wrote, whose loss is measured. Each is predicted from the token before it."""
        return np.flatnonzero(self._tokens["written"])

    @property
    def written_id(self) -> Int[torch.Tensor, " written"]:
        return torch.from_numpy(self._tokens["id"].to_numpy()[self.written])

    @property
    def written_mode(self) -> Int[np.ndarray, " written"]:
        return self._tokens["mode"].to_numpy()[self.written]


@dataclass(frozen=True)
class Splicing:
    """A subject that reads held-out responses, states of one layer replaced.

    memory: bytes above the weights and the dictionaries that may be taken (None: as it is fastest).
    """

    opened: OpenModel
    held_out: MeasuredResponses
    subject: str
    memory: int | None = None

    @property
    def _reading(self) -> int | None:
        return self.memory and self.memory // 2

    def site_means(self, layers: Sequence[int]) -> dict[int, Float[torch.Tensor, " d"]]:
        """The mean state of each of these sites, over all tokens but sinks."""
        sums = {
            layer: torch.zeros(self.opened.identity.d_model, dtype=torch.float64, device=self.opened.device)
            for layer in layers
        }
        offsets, _ = token_offsets(self.held_out.responses, [SPLIT])

        def add(piece: Piece) -> None:
            if piece.layer in sums:
                check_finite(piece, self.subject)
                sink = self.held_out.sink[offsets[piece.response_index] + piece.position]
                kept = torch.from_numpy(np.flatnonzero(~sink)).to(piece.h.device)
                sums[piece.layer] += piece.h[kept].sum(dim=0, dtype=torch.float64).to(self.opened.device)

        stream_states(self.opened, self.held_out.responses, [SPLIT], add, self._reading)
        n = int((~self.held_out.sink).sum())
        return {layer: (total / n).float() for layer, total in sums.items()}

    def measure(
        self, layer: int, dictionaries: Mapping[str, Dictionary], mean: Float[torch.Tensor, " d"]
    ) -> pd.DataFrame:
        """One row per reader of `dictionaries` and mode of the responses: how the layer's dictionary does, and two
        ablations.

        mean: what takes the place of states in the ablation by the mean. For the columns see
        `normprobe.runs.dictionary_files`, fidelity. Losses are nats per token that the model wrote.
        """
        fidelity = {reader: Fidelity(dictionary) for reader, dictionary in dictionaries.items()}
        losses: dict[str, list[np.ndarray]] = {}
        modes = []
        size = min(_FINAL_BYTES, (self.memory or 4 * _FINAL_BYTES) // 4) // (8 * self.opened.identity.d_model)
        for part in self.held_out.parts(size):
            mode = part.mode_read
            replacements: dict[str, Replace] = {
                reader: lambda h, token, own=own, mode=mode: own.read(h, torch.from_numpy(mode[token]))
                for reader, own in fidelity.items()
            }
            replacements["mean"] = lambda h, _token: mean.to(h).expand_as(h)
            replacements["zero"] = lambda h, _token: torch.zeros_like(h)
            plain = self._final(part)
            found = {"plain": self._losses(part, plain, plain)}
            for name, replace in replacements.items():
                found[name] = self._losses(part, plain, self._final(part, layer, replace))
            for name, values in found.items():
                losses.setdefault(name, []).append(values)
            modes.append(part.written_mode)
        mode = np.concatenate(modes)
        of_tokens = {name: np.concatenate(values, axis=1) for name, values in losses.items()}
        rows = []
        for number in np.unique(mode).tolist():
            of_mode = {
                treatment: values[:, mode == number].mean(axis=1) for treatment, values in of_tokens.items()
            }
            for reader, own in fidelity.items():
                keys = {"reader": reader, "layer": layer, "mode": PAIRED[number]}
                counts = {"n_read": int(own.n[number]), "n_written": int((mode == number).sum())}
                rows.append(keys | counts | own.measures(number) | _scores(of_mode, reader))
        return pd.DataFrame(rows)

    def _final(
        self, part: MeasuredResponses, layer: int | None = None, replace: Replace | None = None
    ) -> Float[torch.Tensor, "written d"]:
        """The last site where each written token is predicted, if `replace` acts on the states of a layer."""
        offsets, n = token_offsets(part.responses, [SPLIT])
        place = np.full(n, -1)
        place[part.written - 1] = np.arange(len(part.written))
        final = torch.empty(len(part.written), self.opened.identity.d_model)
        last = len(self.opened.blocks) - 1

        def visit(piece: Piece) -> torch.Tensor | None:
            token, h = offsets[piece.response_index] + piece.position, piece.h
            replaced = None
            if replace is not None and piece.layer == layer:
                check_finite(piece, self.subject)
                sink = torch.from_numpy(part.sink[token]).to(h.device)
                h = replaced = torch.where(sink[:, None], h, replace(h, token))
            if piece.layer == last:
                kept = np.flatnonzero(place[token] >= 0)
                final[place[token[kept]]] = h[torch.from_numpy(kept).to(h.device)].cpu()
            return replaced

        stream_states(self.opened, part.responses, [SPLIT], visit, self._reading)
        return final

    @torch.no_grad()
    def _losses(
        self,
        part: MeasuredResponses,
        plain: Float[torch.Tensor, "written d"],
        final: Float[torch.Tensor, "written d"],
    ) -> Float[np.ndarray, "2 written"]:
        """−ln q of each written token, and KL(p‖q) from the plain model's next-token distribution p, in nats."""
        opened, device = self.opened, self.opened.device
        scratch = reading_plan(opened, part.responses, [SPLIT], self._reading).scratch
        size = max(_FEWEST_ROWS, scratch // opened.anatomy.vocabulary)
        found = []
        for p_rows, q_rows, ids in zip(
            plain.split(size), final.split(size), part.written_id.split(size), strict=True
        ):
            p, q = (torch.log_softmax(opened.unembed(rows.to(device)), dim=-1) for rows in (p_rows, q_rows))
            surprisal = -q.gather(-1, ids.to(q.device)[:, None])[:, 0]
            found.append(torch.stack([surprisal, (p.exp() * (p - q)).sum(dim=-1)]).cpu())
        return torch.cat(found, dim=1).double().numpy()


def _scores(of_mode: Mapping[str, np.ndarray], reader: str) -> dict[str, float]:
    """Loss and KL divergence of one mode, plain, spliced and ablated, and the shares that are recovered."""
    (plain, _), (spliced, kl) = of_mode["plain"], of_mode[reader]
    (mean_loss, mean_kl), (zero_loss, zero_kl) = of_mode["mean"], of_mode["zero"]
    return {
        "ce_loss_without_sae": plain,
        "ce_loss_with_sae": spliced,
        "ce_loss_with_mean": mean_loss,
        "ce_loss_with_ablation": zero_loss,
        "loss_recovered": _share(mean_loss - spliced, mean_loss - plain),
        "ce_loss_score": _share(zero_loss - spliced, zero_loss - plain),
        "kl_div_with_sae": kl,
        "kl_div_with_mean": mean_kl,
        "kl_div_with_ablation": zero_kl,
        "kl_div_score": _share(zero_kl - kl, zero_kl),
    }


def _share(recovered: float, lost: float) -> float:
    return recovered / lost if lost >= LEAST_LOSS else float("nan")
