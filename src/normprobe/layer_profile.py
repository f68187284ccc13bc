"""The layer profile: what the analysis hands to the interventions. Torch-free; stored as layer_profile.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import atomic_write_json, refusing_disk_errors
from normprobe.runs.untrusted import read_json

SCHEMA = 1
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
IQR_FACTOR = 1.5
SMALLEST_IQR = 1e-3
ONSET_RISE = 1.1

_IDENTIFYING = ("weights", "architecture", "n_layers", "d_model", "vocab")

PerMode = dict[str, list[list[float]]]


@dataclass(frozen=True)
class LayerProfile:
    """Norms of the residual stream by layer and mode. Norms are ‖h‖₂ in the model's own units.

    schema: version of this format.
    model: identity of the measured model, `ModelIdentity.to_dict()`.
    quantile_levels: the levels of the quantiles below.
    quantiles: mode → `[layer][level]`, norms of thought and answer tokens of the split `select`, sinks left out.
    quantiles_with_sinks: the same with sinks.
    tau: [layer], Q3 + 1.5·max(IQR, 0.001) of the norm over decoded tokens (thought, answer and format after the
        prompt) of mode think, split `select`: above it a token's norm is high (arXiv 2606.06188; its reference code
        takes the quantiles of batch means, this takes single tokens).
    spike_onset: the layer from which on think outgrows no_think. With r the ratio of the median norms think / no_think
        (sinks left out) per layer, it is the first layer of the second half from which all layers up to the last have
        r > 1.1 · median(r over the first half); None if the last layer has not, or a mode is missing.
    chosen_layers: the last quarter of the layers without the final one, whose norm never reaches the logits.
    n_problems: problems measured.
    """

    schema: int
    model: dict[str, Any]
    quantile_levels: list[float]
    quantiles: PerMode
    quantiles_with_sinks: PerMode
    tau: list[float]
    spike_onset: int | None
    chosen_layers: list[int]
    n_problems: int

    @classmethod
    def measure(
        cls, tokens: pd.DataFrame, norm: Float[np.ndarray, "layer token"], model: Mapping[str, Any]
    ) -> LayerProfile:
        """The profile of a run's traces: traces/tokens.parquet and the `norm` of subject "model".

        Raises NormprobeError if the split `select` has no decoded tokens in mode think.
        """
        selected = (tokens["split"] == "select").to_numpy()
        spoken = selected & tokens["segment"].isin(["thought", "answer"]).to_numpy()
        clean = spoken & ~tokens["sink"].to_numpy(dtype=bool)
        decoded = (
            selected & (tokens["mode"] == "think").to_numpy() & (tokens["segment"] != "prompt").to_numpy()
        )
        if not decoded.any():
            raise NormprobeError(
                "expected decoded think tokens in the split 'select', got none; give more problems"
            )
        modes = tokens["mode"].to_numpy()
        quantiles = _quantiles(norm, modes, clean)
        return cls(
            schema=SCHEMA,
            model=dict(model),
            quantile_levels=list(QUANTILES),
            quantiles=quantiles,
            quantiles_with_sinks=_quantiles(norm, modes, spoken),
            tau=threshold(norm[:, decoded]).tolist(),
            spike_onset=_onset(quantiles),
            chosen_layers=chosen_layers(len(norm)),
            n_problems=int(tokens["problem_id"][selected].nunique()),
        )

    def save(self, path: Path) -> None:
        """Write the profile as JSON, atomically.

        Raises NormprobeError if it holds impossible numbers (as from NaN norms) or the disk refuses.
        """
        content = asdict(self)
        _validate(content, path)
        with refusing_disk_errors(path.parent):
            atomic_write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> LayerProfile:
        """Read a profile.

        Raises NormprobeError if it is missing, truncated, of another schema, or holds impossible numbers.
        """
        try:
            content = read_json(Path(path))
        except OSError as error:
            raise NormprobeError(
                f"expected a layer profile at {path}, got none ({error.strerror}); make one with normprobe verify"
            ) from error
        except ValueError as error:
            raise _damaged(path, f"text that is not whole JSON ({error})") from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: object, source: object = "JSON") -> LayerProfile:
        """A profile from what `dataclasses.asdict` makes of one. source: where it came from, for messages.

        Raises NormprobeError as `load` does.
        """
        if not isinstance(content, dict) or "schema" not in content:
            raise _damaged(source, "no schema version")
        if content["schema"] != SCHEMA:
            raise NormprobeError(
                f"expected a layer profile of schema {SCHEMA} in {source}, got {content['schema']}; "
                "make it again with this version of normprobe"
            )
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            raise _damaged(source, f"other fields ({', '.join(sorted(names ^ set(content)))})")
        try:
            _validate(content, source)
        except (TypeError, AttributeError, OverflowError) as error:
            raise _damaged(source, "values of another type") from error
        return cls(**content)

    def for_model(self, identity: Mapping[str, Any]) -> LayerProfile:
        """This profile, if it was measured on the model of this identity (`ModelIdentity.to_dict()`, or part of it).

        Name, dtype and revision may differ; the weights' fingerprint and the shape may not.
        Raises NormprobeError if they do.
        """
        for key in _IDENTIFYING:
            if key in identity and identity[key] != self.model.get(key):
                raise NormprobeError(
                    f"expected a layer profile of {identity.get('name', 'this model')} ({key} {identity[key]}), "
                    f"got one of {self.model.get('name')} ({self.model.get(key)}); make one with normprobe verify"
                )
        return self


def threshold(norm: Float[np.ndarray, "layer token"]) -> Float[np.ndarray, " layer"]:
    """τ per layer: Q3 + 1.5·max(IQR, 0.001), Tukey's fence for outliers."""
    lower, upper = np.quantile(norm.astype(np.float64), [0.25, 0.75], axis=1)
    return upper + IQR_FACTOR * np.maximum(upper - lower, SMALLEST_IQR)


def chosen_layers(n_layers: int) -> list[int]:
    """The last quarter without the final layer (28 layers: 21…26); at least one layer where there are two."""
    first = min(n_layers - n_layers // 4, n_layers - 2)
    return list(range(max(first, 0), n_layers - 1))


def _quantiles(
    norm: Float[np.ndarray, "layer token"], modes: np.ndarray, chosen: Bool[np.ndarray, " token"]
) -> PerMode:
    present = [str(mode) for mode in pd.unique(modes[chosen])]
    return {
        mode: np.quantile(norm[:, chosen & (modes == mode)].astype(np.float64), QUANTILES, axis=1).T.tolist()
        for mode in present
    }


def _onset(quantiles: PerMode) -> int | None:
    if not {"think", "no_think"} <= set(quantiles):
        return None
    think, no_think = (np.array(quantiles[mode])[:, QUANTILES.index(0.5)] for mode in ("think", "no_think"))
    ratio = think / no_think
    half = len(ratio) // 2
    if half == 0:
        return None
    onset = len(ratio)
    while onset > half and ratio[onset - 1] > ONSET_RISE * np.median(ratio[:half]):
        onset -= 1
    return onset if onset < len(ratio) else None


def _validate(content: Mapping[str, Any], source: object) -> None:
    """Refuse what no measurement can have given. TypeError or AttributeError where a field is not even of its type."""
    model, taus, levels = content["model"], content["tau"], content["quantile_levels"]
    n_layers = len(taus)
    if n_layers == 0 or model.get("n_layers", n_layers) != n_layers:
        raise _damaged(source, f"τ for {n_layers} layers of a model of {model.get('n_layers')}")
    for layer, tau in enumerate(taus):
        if not _is_number(tau) or tau <= 0:
            raise NormprobeError(
                f"expected finite τ > 0 for every layer in {source}, got {tau} in layer {layer}; make the profile again"
            )
    if not all(map(_is_number, levels)) or levels != sorted(levels) or not levels:
        raise _damaged(source, "quantile levels that do not rise")
    if levels[0] < 0 or levels[-1] > 1:
        raise _damaged(source, "quantile levels outside [0, 1]")
    for mode, table in (*content["quantiles"].items(), *content["quantiles_with_sinks"].items()):
        if len(table) != n_layers or any(len(row) != len(levels) for row in table):
            raise _damaged(source, f"quantiles of another shape in mode {mode}")
        if not all(_is_number(value) and value >= 0 for row in table for value in row):
            raise _damaged(source, f"quantiles that are not finite norms in mode {mode}")
        if any(row != sorted(row) for row in table):
            raise _damaged(source, f"quantiles that fall in mode {mode}")
    onset = content["spike_onset"]
    for layer in (*content["chosen_layers"], *([] if onset is None else [onset])):
        if type(layer) is not int or not 0 <= layer < n_layers:
            raise NormprobeError(
                f"expected layers 0…{n_layers - 1} in {source}, got {layer}; make the profile again"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _damaged(source: object, what: str) -> NormprobeError:
    return NormprobeError(
        f"expected a layer profile written by normprobe, got {what} in {source}; "
        "delete it and make it again with normprobe verify"
    )
