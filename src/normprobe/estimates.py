"""About how long a stage takes and how much memory: counts of its work, and rates measured or stated here.

They are estimates: responses are counted as if each reached its limit, and a model that is not tiny-thinker as if the
time of a pass grew with the bytes of its weights. Of the stages that take a minute they are 0.6 to 1.7 times what was
measured on tiny-thinker, 0.7 to 4.8 times on SmolLM2-135M (docs/results.md, what a run takes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from normprobe.config import Study
from normprobe.errors import NormprobeError
from normprobe.local_files import configuration_of, local_path
from normprobe.problems import bundled
from normprobe.reading_plan import ReadingPlan, Shape, slices
from normprobe.training_plan import TrainingPlan

RATES: Mapping[str, float] = {
    "problems": 1e3,
    "responses": 1e4,
    "traces": 2e4,
    "saes": 1.5e4,
    "reductions": 1e5,  # 21,381,120 units in 187 s (docs/results.md, what a run takes)
    "profile": 1e5,
    "experiments": 2e3,
    "methods": 5e3,
    "tasks": 5e3,
    "evidence": 4.0,
    "audit": 0.14,
    "features": 1e4,
    "dictionaries": 1e4,
    "importance": 4e3,
    "paradigm": 100.0,
}
"""Units of `work` per second, of tiny-thinker on one core, where the run has not measured its own."""
_LAYERS, _D = 12, 128
"""Of tiny-thinker."""
_PYTHON_GB = 0.7
"""Python with torch and its libraries."""
_PROMPT = 512
"""Tokens of a prompt, where no response is there to count them."""
_SENTENCE = 12
"""Tokens of a sentence of a thought."""


@dataclass(frozen=True)
class StudySizes:
    """The counts that the work of a study depends on. n: split → problems.

    weights_gb, shape: of the model; None if its files are not on this machine. longest: tokens of the longest response
    with its prompt, thought: mean tokens of a measured thought with its answer, where the run has them.
    """

    study: Study
    n: Mapping[str, int]
    weights_gb: float | None
    shape: Shape | None
    longest: int | None = None
    thought: float | None = None

    @classmethod
    def of(
        cls,
        study: Study,
        n: Mapping[str, int],
        longest: int | None = None,
        thought: float | None = None,
    ) -> StudySizes:
        """Reads the sizes and the configuration of a local model's files, and nothing else of it."""
        content = None
        with suppress(ValueError):  # a damaged one: opening it says so
            content = configuration_of(study.model.name, study.model.revision)
        folder = local_path(study.model.name, study.model.revision)
        if content is None or folder is None:
            return cls(study, n, None, None, longest, thought)
        shape = None
        with suppress(NormprobeError):  # of another architecture: opening it says so
            shape = Shape.of(content, 4 if study.model.dtype == "float32" else 2)
        whole = (folder / "config.json").is_file()
        weights = _weights_gb(folder) if whole or shape is None else shape.bytes / 1e9
        return cls(study, n, weights, shape, longest, thought)

    @property
    def reading(self) -> ReadingPlan | None:
        """The batches, chunks and slices in which responses are read; None if nothing is known of the model.

        Raises NormprobeError if the study's memory does not suffice.
        """
        if self.shape is None:
            return None
        study = self.study
        return ReadingPlan.of(self.shape, self.longest or self._limit, study.model.device, study.memory)

    @property
    def reading_note(self) -> str:
        """`reading` in one line; empty if nothing is known of the model."""
        if (plan := self.reading) is None or self.shape is None:
            return ""
        longest = self.longest or self._limit
        chunks = f"chunks of {plan.tokens:,} over a cache" if longest > plan.tokens else "one pass each"
        rows, entries = slices(plan.scratch, self.shape.vocabulary)
        return (
            f"Reading: batches of {plan.tokens:,} tokens; responses of up to {longest:,} tokens in {chunks}; "
            f"{rows:,} × {entries:,} logits of the lens and {plan.scratch:,} attention scores at once; "
            f"at most {plan.peak / 1e9:.2f} GB above {self.shape.bytes / 1e9:.2f} GB of weights per network."
        )

    @property
    def training(self) -> TrainingPlan | None:
        """What our trainer takes; None if the dictionaries are given, or nothing is known of the model."""
        saes, shape = self.study.saes, self.shape
        if shape is None or saes.given is not None or saes.trainer != "normprobe":
            return None
        return TrainingPlan(
            layers=self._read_layers,
            d=shape.d,
            width=saes.width,
            k=saes.k,
            tokens=saes.n_samples,
            batch=saes.batch_size,
            model_bytes=shape.bytes,
            state_bytes=saes.memory,
            itemsize=shape.itemsize,
        )

    @property
    def training_note(self) -> str:
        """`training` in words; empty without one."""
        return "" if (plan := self.training) is None else plan.note

    @property
    def importance(self) -> tuple[int, int]:
        """Continuations that `normprobe importance` draws, and their tokens."""
        settings = self.study.importance
        whole = self.thought or self.study.max_new_tokens
        places = whole / _SENTENCE + 1
        draws = min(settings.problems, self.n["measure"]) * settings.draws * places
        # From before its first sentence a whole thought is written, from behind its last only the answer.
        return round(draws), round(draws * whole / 2)

    @property
    def importance_note(self) -> str:
        """`importance` in one line."""
        draws, tokens = self.importance
        return (
            f"Importance: about {draws:,} continuations, {tokens:,} tokens, counted at {_SENTENCE} tokens a sentence; "
            f"a thought is read once for every {self.study.importance.batch_size} of its continuations."
        )

    @property
    def _limit(self) -> int:
        """A prompt, and an answer at its limit."""
        return self.study.max_new_tokens + _PROMPT

    @property
    def _read_layers(self) -> int:
        """Layers that dictionaries read."""
        saes = self.study.saes
        return len(saes.layer_list or [0]) if self.shape is None else len(saes.layers_of(self.shape.layers))

    @property
    def subjects(self) -> int:
        """The model, its untrained twin, and an early checkpoint if there is one."""
        return 2 + (self.study.model.early_checkpoint is not None)

    def work(self, stage: str) -> float:
        """The work of a stage in units of its own, such as tokens: more of it takes in proportion longer."""
        s = self.study
        tokens = 3.0 * sum(self.n.values()) * s.max_new_tokens
        layers = self._read_layers
        part = s.methods.part
        answers = 225 * s.methods.tune + s.methods.test * (30 + s.methods.samples)
        match stage:
            case "problems":
                return float(sum(self.n.values()))
            case "responses" | "profile":
                return tokens
            case "tasks":
                return tokens * s.methods.answers
            case "traces":
                return tokens * self.subjects
            case "saes":
                return 1.0 * s.saes.n_samples * layers * self.subjects
            case "reductions":
                return tokens * layers * (self.subjects + 1)
            case "experiments":
                return 12.0 * self.n["measure"] * s.max_new_tokens
            case "methods":
                return 1.0 * (answers + part * (20 + 3 * s.methods.samples)) * s.max_new_tokens
            case "dictionaries":
                # Nine passes a layer: plain, four and three replacements of two subjects' states.
                read = 2.0 * min(s.dictionaries.problems, self.n["measure"]) * s.max_new_tokens
                again = 0 if s.saes.given else s.dictionaries.retrained
                return layers * (9 * read + again * s.saes.n_samples)
            case "evidence" | "paradigm":
                return float(self.n["measure"])
            case "importance":
                return float(self.importance[1])
            case "features":
                return tokens + 4.0 * layers * s.features.per_layer * s.features.n_injected * s.max_new_tokens
            case _:
                return (s.audit.nulls + 10 * s.audit.trained) * s.audit.problems / 40 + s.audit.samples / 50

    def seconds(self, stage: str, measured: float | None) -> float | None:
        """How long a stage takes at a measured rate, or at that of `RATES`; None if nothing is known of the model."""
        if measured is not None:
            return self.work(stage) / measured
        return None if (slower := self._slower(stage)) is None else self.work(stage) / RATES[stage] * slower

    def _slower(self, stage: str) -> float | None:
        """How many times as long a unit of work takes as with tiny-thinker; None if nothing is known of the model."""
        if stage in ("problems", "profile", "evidence"):
            return 1.0
        if self.weights_gb is None:
            return None
        slower = max(self.weights_gb / _weights_gb(bundled.TESTBED / "final"), 1.0)
        if self.shape is None or stage not in ("saes", "reductions", "dictionaries"):
            return slower
        # Their work counts layers already. Training depends on the width of a state, not on the weights behind it, and
        # so do reductions until their passes, one for all layers, take longer.
        wider = max(self.shape.d / _D, 1.0)
        by_stage = {
            "saes": wider,
            "reductions": max(wider, slower / self._read_layers),
            "dictionaries": max(slower * _LAYERS / self.shape.layers, 1.0),
        }
        return by_stage[stage]

    def gigabytes(self, stage: str) -> float | None:
        """Memory of a stage: the networks that it opens, the states that it holds, and Python."""
        if stage in ("problems", "evidence", "paradigm"):
            return _PYTHON_GB
        if self.shape is None or self.reading is None:
            return None
        reads = stage in ("traces", "saes", "reductions", "audit", "features", "dictionaries")
        trains = stage in ("saes", "dictionaries")
        held = self.study.saes.memory_gb if trains else 0.0
        if trains and (plan := self.training):
            held += plan.layers * plan.layer_bytes / 1e9
        networks = (self.subjects if reads and stage != "features" else 1) * self.shape.bytes / 1e9
        return _PYTHON_GB + networks + held + (self.reading.peak / 1e9 if reads else 0.0)


def _weights_gb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9


def duration(seconds: float | None) -> str:
    """A time in the largest unit of which there are two or more: s, min, h, days."""
    if seconds is None:
        return "unknown"
    units = (("days", 86400), ("h", 3600), ("min", 60))
    unit, length = next((one for one in units if seconds >= 2 * one[1]), ("s", 1))
    return f"{seconds / length:.0f} {unit}"


def in_all(seconds: Iterable[float | None]) -> str:
    """How long stages take together; empty where one is unknown."""
    known = list(seconds)
    return "" if None in known or not known else f"In all about {duration(sum(filter(None, known)))}."
