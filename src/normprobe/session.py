"""A study at work in its run directory: the networks and tables that its stages share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from normprobe.config import Study
from normprobe.console import shows_bars
from normprobe.estimates import StudySizes
from normprobe.layer_profile import LayerProfile
from normprobe.model_settings import ModelSettings
from normprobe.ranks import ALONE, Rank
from normprobe.runs.directory import Run
from normprobe.runs.layout import FILES
from normprobe.runs.tables import Tables

if TYPE_CHECKING:
    from normprobe.engines.base import Engine
    from normprobe.models.model import OpenModel


@dataclass
class Session:
    """A study and its run. Networks are opened when a stage first needs them, and stay open.

    processes: workers of the stages that use several; None: one per core. progress: report on stderr, with progress
    bars where somebody looks. rank: which of several processes this is; only the first writes what belongs to the run.
    held: the model itself, where the study's is in memory.
    """

    study: Study
    run: Run
    progress: bool = True
    processes: int | None = None
    rank: Rank = ALONE
    held: OpenModel | None = None
    _opened: dict[str, OpenModel] = field(default_factory=dict)

    @property
    def bars(self) -> bool:
        """Whether stages show progress bars: not in a pipe, where a log wants lines."""
        return self.progress and shows_bars()

    @property
    def tables(self) -> Tables:
        """The tables of the finished stages, read anew: a stage that runs again replaces its own."""
        return Tables(self.run.path)

    @property
    def profile(self) -> LayerProfile:
        return LayerProfile.load(self.run["profile"] / FILES["profile"].name)

    @property
    def sizes(self) -> dict[str, int]:
        """How many problems of each split are asked of a source that can choose."""
        asked = self.study.problems
        return {"sae": asked.n_sae, "select": asked.n_select, "measure": asked.n_measure}

    def workload(self) -> StudySizes:
        """The counts that time and memory are estimated from. Reads the problems if the run has not yet."""
        is_there = self.run.is_current("problems")
        problems = self.tables.problems if is_there else self.study.source.load(self.sizes, self.study.seed)
        n = {str(split): len(rows) for split, rows in problems.groupby("split")}
        longest = thought = None
        if self.tables.has("responses"):
            responses = self.tables.responses
            lengths = responses["token_ids"].map(len)
            longest = int(lengths.max())
            thinking = (responses["mode"] == "think") & (responses["split"] == "measure")
            thought = float((lengths - responses["n_prompt"])[thinking].mean())
        return StudySizes.of(self.study, n, longest, thought)

    def model(self, subject: str = "model") -> OpenModel:
        """The network of a subject: "model", "untrained" or "early"."""
        if subject not in self._opened:
            self._opened[subject] = self._open(subject)
            opened = self._opened[subject]
            if self.rank.leads:
                self.run.identify(
                    **{subject: opened.identity.to_dict()}, thinking=opened.chat.format.to_dict()
                )
        return self._opened[subject]

    def _open(self, subject: str) -> OpenModel:
        from normprobe.models.open import open_for

        if subject == "untrained":
            return self.model().untrained(self.study.seed)
        if subject == "model" and self.held is not None:
            return self.held
        settings = self.study.model.early_checkpoint if subject == "early" else self.study.model
        assert settings is not None
        return open_for(self.rank.placed(settings), self.study.thinking)

    @contextmanager
    def engine(self, settings: ModelSettings | None = None) -> Iterator[Engine]:
        """What writes the responses of the study's model, for as long as the block lasts.

        settings: of the model, with the engine to take; by default the study's own.
        """
        from normprobe.engines.engine_choice import engine_of

        with engine_of(self.model(), settings or self.study.model) as engine:
            yield engine

    @property
    def subjects(self) -> dict[str, OpenModel]:
        """All networks that are read, by subject."""
        names = ["model", "untrained", *(["early"] if self.study.model.early_checkpoint else [])]
        return {name: self.model(name) for name in names}

    def log(self, line: str) -> None:
        """Tell the user on stderr, unless the session is quiet."""
        if self.progress:
            print(line, file=sys.stderr, flush=True)
