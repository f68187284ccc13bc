"""Run directories in which each claim's effect is planted or absent, in the formats that a real run has.

Growth with depth, length, token identity and a difference between modes are in every subject and reader, as in a
network
that only reads: they are what a claim must not mistake for its effect. Effects enter the subject "model" alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from layout_fixture import put

LAYERS, LATE = 8, slice(6, 8)
N_SELECTED = 5
SUBJECTS = ("model", "untrained", "early")
READERS = {"model": "model", "random": "model", "untrained": "untrained", "early": "early"}
ENTROPIES = ("entropy_softmax", "entropy_rms", "entropy_energy", "output_entropy", "attention_entropy")
STEP = (
    ("then", "connective"),
    ("a:", "copied"),
    ("7", "copied"),
    ("is", "connective"),
    ("7", "computed"),
    (";", "format"),
)
PLAN = (("plan", "format"), ("b:", "plan"))
ANSWER = ["answer", ":", "7"]
DOMAINS = ("arithmetic", "boolean", "pointer", "recall")


@dataclass(frozen=True)
class Effects:
    """What is planted; 0 plants nothing. Logarithms of factors (`thinking_norm` twice in late layers, `difficulty` and
    `domain` per step, `hard` per nat of early surprisal); `tracking` is a weight, `causal` a lost accuracy.
    """

    late_spike: float = 0.0
    thinking_norm: float = 0.0
    tracking: float = 0.0
    words: float = 0.0
    critical: float = 0.0
    causal: float = 0.0
    difficulty: float = 0.0
    domain: float = 0.0
    hard: float = 0.0


def write_run(
    path: Path,
    effects: Effects = Effects(),
    *,
    seed: int = 0,
    n_problems: int = 40,
    subjects: tuple[str, ...] = SUBJECTS,
    entropies: tuple[str, ...] = ENTROPIES,
    modes: tuple[str, ...] = ("think", "no_think", "filler"),
    roles: bool = True,
) -> Path:
    rng = np.random.default_rng(seed)
    tokens = _tokens(n_problems, modes, roles)
    about = tokens[["problem_id", "domain", "difficulty", "split"]].drop_duplicates(ignore_index=True)
    put(path, "problems", about)
    put(path, "tokens", tokens)
    # What norms and features may share from token to token, if `tracking` is planted.
    drive = rng.normal(size=(LAYERS, len(tokens)))
    hardness = rng.exponential(size=len(tokens))
    for subject in subjects:
        planted = effects if subject == "model" else Effects()
        signals = _signals(tokens, planted, entropies, drive, hardness, rng)
        if subject == "early":
            signals["surprisal"] = np.where(tokens["position"] == 0, np.nan, hardness).astype(np.float32)
        put(path, f"signals/{subject}", signals)
    readers = [reader for reader, subject in READERS.items() if subject in subjects]
    z = {}
    for reader in readers:
        z |= {f"{reader}/{name}": values for name, values in _z(tokens, reader, effects, drive, rng).items()}
    put(path, "z", z)
    dictionary = pd.DataFrame(
        [
            {"reader": reader, "layer": layer, "n_selected": N_SELECTED}
            for reader in readers
            for layer in range(LAYERS)
        ]
    )
    put(path, "dictionary", dictionary)
    put(path, "suppression", _suppression(n_problems, effects.causal, rng))
    return path


def _tokens(n_problems: int, modes: tuple[str, ...], roles: bool) -> pd.DataFrame:
    rows = []
    for problem in range(2 * n_problems):
        split = "measure" if problem % 2 else "select"
        domain, difficulty = DOMAINS[problem // 2 % 4], 1 + problem // 8 % 4
        steps = [*PLAN, *STEP * (1 + difficulty)]
        for mode in modes:
            thought = {"think": steps, "filler": [(".", None)] * len(steps), "no_think": []}[mode]
            response = [
                *(("ask", None, "prompt"), ("b:", None, "prompt")),
                *((text, role, "thought") for text, role in thought),
                ("</think>", None, "format"),
                *((text, "answer", "answer") for text in ANSWER),
                ("<|im_end|>", None, "format"),
            ]
            rows += [
                {
                    "response_id": f"p{problem:03d}/{mode}/0",
                    "problem_id": f"p{problem:03d}",
                    "split": split,
                    "domain": domain,
                    "difficulty": difficulty,
                    "mode": mode,
                    "sample": 0,
                    "position": position,
                    "token_id": sum(text.encode()),
                    "token": text,
                    "segment": segment,
                    "role": role if roles else None,
                    "sink": position == 0,
                }
                for position, (text, role, segment) in enumerate(response)
            ]
    return pd.DataFrame(rows)


def _signals(
    tokens: pd.DataFrame,
    effects: Effects,
    entropies: tuple[str, ...],
    drive: np.ndarray,
    hardness: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    shape = (LAYERS, len(tokens))
    depth = np.log1p(np.arange(LAYERS))[:, None]
    identity = (tokens["token_id"].to_numpy() % 7) / 20 + 0.3 * (tokens["segment"] == "thought").to_numpy()
    log_norm = depth + identity + 0.2 * rng.normal(size=shape) + 0.2 * effects.tracking * drive
    thinking = (tokens["mode"] == "think").to_numpy()
    log_norm += thinking * (effects.thinking_norm + effects.difficulty * tokens["difficulty"].to_numpy())
    log_norm[LATE] += effects.thinking_norm * thinking
    log_norm[LATE] += effects.domain * thinking * tokens["domain"].map(DOMAINS.index).to_numpy()
    log_norm += effects.words * _word(tokens)
    log_norm += effects.hard * np.roll(hardness, -1)  # at the state that predicts the hard token
    log_norm[LATE] += effects.critical * (tokens["role"] == "computed").to_numpy()
    signals = {"norm": np.exp(log_norm), "surprisal": rng.exponential(size=len(tokens))}
    signals |= {name: rng.exponential(size=shape) for name in entropies}
    signals["surprisal"][tokens["position"] == 0] = np.nan
    return {name: values.astype(np.float32) for name, values in signals.items()}


def _word(tokens: pd.DataFrame) -> np.ndarray:
    """A number between 0 and 1 that depends on the token's identity alone."""
    return (tokens["token_id"].to_numpy() % 11) / 10


def _z(
    tokens: pd.DataFrame, reader: str, effects: Effects, drive: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Codes that grow with depth as the norm does; reasoning features of every reader are thrice as active in
    thinking."""
    shape = (LAYERS, len(tokens))
    scale = np.arange(1, LAYERS + 1)[:, None]
    noise = drive if reader == "model" else rng.normal(size=shape)
    thinking = (tokens["mode"] == "think").to_numpy()
    reasoning = scale * np.exp(0.3 * noise) * np.where(thinking, 3.0, 1.0)
    if reader == "model":
        reasoning *= np.exp(effects.words * _word(tokens))
        reasoning[LATE] *= np.where(thinking, np.exp(effects.late_spike), 1.0)
    matched = scale * np.exp(0.3 * rng.normal(size=shape))
    return {
        name: values.astype(np.float32)
        for name, values in (
            ("z_reasoning", reasoning),
            ("z_matched", matched),
            ("z_total", reasoning + matched),
        )
    }


def _suppression(n_problems: int, drop: float, rng: np.random.Generator) -> pd.DataFrame:
    """Answers drawn with each reader's accuracy; what keeps more of the high-norm states loses less of `drop`."""
    treatments = {  # accuracy, factor
        "plain": (0.9, 1.0),
        "high_norm": (0.9 - drop, 0.1),
        "random_matched": (0.85, np.nan),
        "random_same_factor": (0.88, 0.1),
        "class_matched": (0.86, np.nan),
        "rotation": (0.9 - drop / 2, 1.0),
        "direction_only": (0.9 - drop / 4, np.nan),
        "low_norm": (0.9, 0.1),
        "high_norm_0.5": (0.9 - drop / 2, 0.5),
        "random_same_factor_0.5": (0.89, 0.5),
    }
    rows = [
        {
            "problem_id": f"p{2 * problem + 1:03d}",
            "treatment": treatment,
            "mode": "think",
            "factor": factor,
            "on_same_tokens": 0.3 if treatment == "class_matched" else np.nan,
            "correct": bool(rng.random() < accuracy),
            "n_tokens": 20,
            "n_suppressed": 0 if treatment == "plain" else 6,
            "delta_norm": 1.0,
        }
        for problem in range(n_problems)
        for treatment, (accuracy, factor) in treatments.items()
    ]
    return pd.DataFrame(rows).astype({"correct": "boolean"})
