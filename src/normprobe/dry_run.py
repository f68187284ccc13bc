"""What a command would run, why, and about how long it takes: `--dry-run`. Writes nothing and opens no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normprobe.estimates import duration, in_all
from normprobe.pipeline import Pipeline
from normprobe.runs.directory import StageLabel
from normprobe.session import Session
from normprobe.settings import flat
from normprobe.study_stages import needed

HEAD = ("stage", "state", "time", "memory", "reason")
NOTE = (
    "Times and memory are estimates: responses are counted at their full length, and the speed is this run's own "
    "where it has finished the stage before, else that of tiny-thinker on one core, scaled by the model's size."
)


def stage_table(session: Session, *targets: str) -> str:
    """The plan as a table for a terminal. Raises NormprobeError as `stage_plan`."""
    plan = stage_plan(session, *targets)
    rows = [HEAD, *(tuple(stage[column] for column in HEAD) for stage in plan["stages"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join([*(line.rstrip() for line in lines), "", *plan["notes"]])


def stage_plan(session: Session, *targets: str) -> dict[str, Any]:
    """The `stages` that `targets` need, by the names in `HEAD`: done, or to run with the reason, an estimated time and
    memory, which are numbers too (`seconds`, `gigabytes`; None: unknown, or done); and `notes` on the estimates.

    Raises NormprobeError for settings that cannot run, as far as is known without a model.
    """
    pipeline = Pipeline(session)
    pipeline.check_run()
    labels, again, names = pipeline.labels(targets), set[str](), needed(targets)
    stages = list[dict[str, Any]]()
    work = session.workload()
    for name in names:
        label, made = labels[name], session.run.label(name)
        if made is not None and made.key == label.key:
            stages.append(_stage(name, "done"))
            continue
        reasons = "missing" if made is None else "; ".join(_reasons(made, label, again))
        if made is None and session.run.resumes(label):
            reasons = "unfinished, resumes"
        again.add(name)
        cost = work.seconds(name, session.run.rate(name)), work.gigabytes(name)
        stages.append(_stage(name, "to run", *in_words(*cost), reasons, *cost))
    on_gpu = "saes" in targets or session.study.model.device != "cpu"  # what the note's times are of
    training = work.training_note if "saes" in names and on_gpu else ""
    importance = work.importance_note if "importance" in names else ""
    takes = [stage["seconds"] for stage in stages if stage["state"] != "done"]
    notes = [note for note in (in_all(takes), work.reading_note, training, importance, NOTE) if note]
    return {"stages": stages, "notes": notes}


def _stage(
    name: str,
    state: str,
    time: str = "",
    memory: str = "",
    reason: str = "",
    seconds: float | None = None,
    gigabytes: float | None = None,
) -> dict[str, Any]:
    return dict(zip(HEAD, (name, state, time, memory, reason), strict=True)) | {
        "seconds": seconds,
        "gigabytes": gigabytes,
    }


def _reasons(made: StageLabel, label: StageLabel, again: set[str]) -> Iterator[str]:
    """Why a finished stage is not what it should be."""
    if made.version != label.version:
        yield f"stage version {made.version} → {label.version}"
    yield from _changes(dict(flat(made.settings)), dict(flat(label.settings)))
    for stage in {**made.reads, **label.reads}:
        if made.reads.get(stage) != label.reads.get(stage):
            yield f"reads {stage}, which {'runs again' if stage in again else 'has changed'}"


def _changes(made: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path in {**now, **made}:
        old, new = made.get(path, "absent"), now.get(path, "absent")
        if old != new:
            section, _, name = path.partition(".")
            what = f"claim {name} version" if section == "claims" else path
            yield f"{what} {_short(old)} → {_short(new)}"


def _short(value: object) -> str:
    """A value in few characters: hashes are cut."""
    text = "none" if value is None else str(value)
    return f"{text[:8]}…" if len(text) > 40 and " " not in text else text


def in_words(seconds: float | None, gigabytes: float | None) -> tuple[str, str]:
    """A time and a memory as text."""
    return duration(seconds), "unknown" if gigabytes is None else f"{gigabytes:.1f} GB"
