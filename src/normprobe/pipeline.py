"""The pipeline runs what is missing of a study's stages.

A stage's key is a hash of its name, its version, the settings it reads and the keys of the stages it reads: a stage
whose key is unchanged is not run again, and one whose key has changed counts as absent for every reader. Whether a
stage has to run is decided before torch is imported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from normprobe.config import Study
from normprobe.errors import NormprobeError
from normprobe.estimates import StudySizes, duration
from normprobe.runs.atomic import atomic_write_text
from normprobe.runs.directory import Run, StageLabel, resuming
from normprobe.runs.layout import FILES
from normprobe.session import Session
from normprobe.settings import flat
from normprobe.study_stages import EVALUATING, MODEL_FREE, STAGES, WRITING, needed


@dataclass
class Pipeline:
    """The stages of one session."""

    session: Session

    @cached_property
    def _settings(self) -> dict[str, dict[str, Any]]:
        """What every stage reads of the study. The files of local models are hashed for it: once is enough."""
        return {stage.name: stage.settings(self.session.study) for stage in STAGES.values()}

    def labels(self, targets: Collection[str] = ()) -> dict[str, StageLabel]:
        """What every stage should be made from now. targets: stages asked for, which count as finished.

        A stage that runs on request and is not asked for keeps the settings that it was made with, but for the seed.
        Raises NormprobeError for problems or dictionaries that are not there.
        """
        run, labels = self.session.run, dict[str, StageLabel]()
        for stage in STAGES.values():
            made, chosen = run.label(stage.name), self._settings[stage.name]
            if (
                stage.on_request
                and stage.name not in targets
                and made
                # An evaluation names its engine only where that is not the default one.
                and made.settings.keys() ^ chosen.keys() <= {"engine"}
            ):
                chosen = {**made.settings, "seed": chosen["seed"]}
            also = [name for name in stage.optional if name in targets or self._finished(labels[name])]
            reads = {name: labels[name].key for name in (*stage.reads, *also)}
            labels[stage.name] = StageLabel(stage.name, stage.version, chosen, reads)
        return labels

    def _finished(self, label: StageLabel) -> bool:
        made = self.session.run.label(label.name)
        return made is not None and made.key == label.key

    def check_run(self) -> None:
        """Raises NormprobeError for layers that the model lacks, where its files tell, and if the directory holds
        responses of another model or to other problems.

        Their report would be gone at once, most likely because an option was forgotten. A model or a file of the same
        name may have changed.
        """
        run, study = self.session.run, self.session.study
        if (shape := StudySizes.of(study, {}).shape) is not None:
            study.saes.layers_of(shape.layers)
        made, asked = run.label("responses"), run.label("problems")
        if made is None or asked is None:
            return
        now = self.labels()
        name = run.manifest()["arguments"]["resolved"]["model"]["name"]
        if made.settings["model"]["model"] != now["responses"].settings["model"]["model"]:
            self._refuse("a run of", name, study.model.name)
        old, new = asked.settings["problem_set"], now["problems"].settings["problem_set"]
        if old["fingerprint"] != new["fingerprint"]:
            self._refuse("a run on the problems", old["source"], new["source"])

    def _refuse(self, what: str, old: str, new: str) -> None:
        if old != new:
            path = self.session.run.path
            raise NormprobeError(
                f"expected {what} {new} in {path}, got one of {old}; name another --out, delete {path}, or go on with "
                f"that run: {resuming(path)}"
            )

    def check_model(self, *targets: str) -> None:
        """Raises NormprobeError if these stages need a model that was in memory in another program, or an engine that
        is not installed."""
        study, labels = self.session.study, self.labels(targets)
        missing = [name for name in needed(targets) if not self._finished(labels[name])]
        for stages, settings in ((WRITING, study.model), (EVALUATING, study.evaluated)):
            if not set(stages).isdisjoint(missing):
                settings.check_engine()
        if not study.model.is_in_memory or self.session.held is not None:
            return
        for name in missing:
            if name not in MODEL_FREE:
                raise NormprobeError(
                    f"expected the files of the model for the stage {name}, got a study of a model that was in memory; "
                    "save it with save_pretrained and verify its folder"
                )

    def begin(self) -> None:
        """Write the study into its run directory, made if missing. Stages of another study are absent from then on.

        Raises NormprobeError as `labels` does, before anything is written.
        """
        session = self.session
        labels, resolved = self.labels(), dataclasses.asdict(session.study)
        del resolved["saes"]["cache"]  # a place on this machine, and no study's
        defaults = dict(flat(dataclasses.asdict(Study())))
        given = {path: value for path, value in flat(resolved) if value != defaults[path]}
        stages = {name: label.key for name, label in labels.items()}
        Run.open(session.run.path, resolved, given=given, stages=stages)
        self._publish()

    def run(self, *targets: str) -> None:
        """Run what is missing of these stages and of those that they read. Raises NormprobeError as the stages do."""
        self.check_model(*targets)
        names = needed(targets)
        for number, name in enumerate(names, start=1):
            labels = self.labels(targets)
            if self._finished(label := labels[name]):
                continue
            start, work = time.monotonic(), self.session.workload()
            left = [later for later in names[number - 1 :] if not self._finished(labels[later])]
            self.session.log(f"[{number}/{len(names)}] {name} …{self._cost(work, left)}")
            with self.session.run.stage(label, work.work(name)) as folder:
                STAGES[name].fill(self.session, folder)
            (self.session.run.path / FILES["report"].path).unlink(missing_ok=True)
            self._publish()
            self.session.log(f"[{number}/{len(names)}] {name}: {time.monotonic() - start:.0f} s")

    def _cost(self, work: StudySizes, left: Sequence[str]) -> str:
        """About how long the first of the stages takes, of all that are `left`, and its memory; empty if unknown."""
        seconds = [work.seconds(name, self.session.run.rate(name)) for name in left]
        memory = work.gigabytes(left[0])
        if seconds[0] is None or memory is None:
            return ""
        rest = "" if None in seconds else f" of {duration(sum(filter(None, seconds)))} left"
        return f" about {duration(seconds[0])}{rest}, {memory:.1f} GB"

    def _publish(self) -> None:
        """Bring what lies outside the stages in line with them: the manifest's keys, the profile, the report."""
        run = self.session.run
        run.expect({name: label.key for name, label in self.labels().items()})
        published = run.path / FILES["published_profile"].path
        if run.is_current("profile"):
            profile = run.path / FILES["profile"].path
            atomic_write_text(published, profile.read_text(encoding="utf-8"))
        else:
            published.unlink(missing_ok=True)
        if not run.is_current("features"):
            (run.path / FILES["features_html"].path).unlink(missing_ok=True)
        if not run.is_current("evidence"):
            (run.path / FILES["report"].path).unlink(missing_ok=True)


def follow(pipeline: Pipeline) -> None:
    """Train the layers of a process that does not lead, in the stage saes that another one has begun.

    Waits for it, and leaves everything else to the other. Returns at once if the stage is finished.
    """
    session, label = pipeline.session, pipeline.labels()["saes"]
    while not session.run.resumes(label):
        made = session.run.label("saes")
        if made is not None and made.key == label.key:
            return
        time.sleep(1)
    STAGES["saes"].fill(session, session.run.path / "saes.partial")
