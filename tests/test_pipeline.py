"""The stages of a run: what makes each run again, what another study in the same directory hides, and dry runs."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from run_fixture import write_finished_run

from normprobe import evaluate
from normprobe.claims.registry import BY_NAME, CLAIMS, write_claim
from normprobe.config import AuditSettings, MethodSettings, Study
from normprobe.console import run_main
from normprobe.dry_run import stage_table
from normprobe.errors import NormprobeError
from normprobe.estimates import duration, in_all
from normprobe.pipeline import Pipeline
from normprobe.report.audit_results import is_audited
from normprobe.report.findings import read_evidence
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables
from normprobe.session import Session
from normprobe.study_file import changed
from normprobe.study_stages import STAGES, needed
from normprobe.verify import main as verify

WANTED = needed(["evidence"])


def pipeline_of(path: Path, study: Study | None = None) -> Pipeline:
    return Pipeline(Session(study or Study(), Run(path), progress=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default study with methods/ and audit/: planted tables, judged by the pipeline itself."""
    tables = write_finished_run(tmp_path_factory.mktemp("tables") / "run")
    pipeline = pipeline_of(tmp_path_factory.mktemp("finished") / "run")
    pipeline.begin()
    run = pipeline.session.run
    for name in [*WANTED[:-1], "methods"]:
        with run.stage(pipeline.labels(["methods"])[name]) as folder:
            if (tables / name).exists():
                copy(tables / name, folder)
    pipeline.run("evidence")
    with run.stage(pipeline.labels()["audit"]) as folder:
        copy(tables / "audit", folder)
    return run.path


def copy(stage: Path, folder: Path) -> None:
    shutil.copytree(stage, folder, dirs_exist_ok=True, ignore=lambda *_: ["stage.json"])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def states(path: Path, study: Study | None = None, *targets: str) -> dict[str, str]:
    """Stage → "done", or why it runs again, as a dry run lists them."""
    lines = stage_table(pipeline_of(path, study).session, *(targets or ("evidence",))).splitlines()
    cut = lines[0].index("reason")
    rows = lines[1 : lines.index("")]
    return {line.split()[0]: line[cut:] or line.split()[1] for line in rows}


def changed_study(**values: object) -> Study:
    return changed(Study(), values)


def test_stages_stand_after_what_they_read():
    for number, stage in enumerate(STAGES.values()):
        assert set(stage.reads) | set(stage.optional) <= set(list(STAGES)[:number])
    assert WANTED == [
        "problems", "responses", "traces", "saes", "reductions", "profile", "experiments", "evidence",
    ]  # fmt: skip
    assert needed(["saes"]) == ["problems", "responses", "saes"]
    assert needed(["profile"]) == ["problems", "responses", "traces", "profile"]


def test_a_finished_run_has_nothing_to_do(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert states(run, None, "evidence", "methods", "audit") == dict.fromkeys(
        [*WANTED[:-1], "methods", "evidence", "audit"], "done"
    )
    pipeline_of(run).run("evidence", "methods", "audit")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "manifest.json"} == {
        path: time for path, time in before.items() if path.name != "manifest.json"
    }


@pytest.mark.parametrize(
    ("values", "again", "reason"),
    [
        ({"seed": 1}, WANTED, "seed 0 → 1"),
        ({"saes": {"width": 64}}, ["saes", "reductions", "evidence"], "width 512 → 64"),
        (
            {"tracing": {"lens_tokens": 8}},
            ["traces", "profile", "experiments", "evidence"],
            "lens_tokens none → 8",
        ),
        ({"experiments": {"batch_size": 8}}, ["experiments", "evidence"], "batch_size 128 → 8"),
        (
            {"responses": {"max_new_tokens": 9}},
            [s for s in WANTED if s != "problems"],
            "max_new_tokens 160 → 9",
        ),
        ({"model": {"offline": True}}, [], ""),
        ({"memory_gb": 2}, [], ""),
    ],
)
def test_only_what_reads_a_setting_runs_again(run, values, again, reason):
    found = states(run, changed_study(**values))
    assert [name for name, state in found.items() if state != "done"] == again
    assert reason in (found[again[0]] if again else "")
    if len(again) > 1:
        assert "which runs again" in found[again[-1]]


def test_a_newer_version_of_a_stage_is_told(run, monkeypatch):
    made = STAGES["saes"].version
    monkeypatch.setitem(STAGES, "saes", replace(STAGES["saes"], version=made + 1))
    found = states(run)
    assert found["saes"] == f"stage version {made} → {made + 1}"
    assert found["reductions"] == "reads saes, which runs again"
    assert found["traces"] == "done"


def test_another_study_in_the_directory_hides_what_was_of_the_first(run):
    assert Tables(run).has("method_treatments")
    assert is_audited(run)
    assert (run / "layer_profile.json").exists()
    (run / "features.html").touch()
    pipeline_of(run, changed_study(seed=1)).begin()
    tables = Tables(run)
    assert not tables.has("method_treatments")
    assert not tables.has("tokens")
    assert not is_audited(run)
    with pytest.raises(NormprobeError, match=r"expected .*verdicts\.json, which this run does not have"):
        read_evidence(run)
    assert not (run / "layer_profile.json").exists()
    assert not (run / "report.html").exists()
    assert not (run / "features.html").exists()
    # The first study again finds all of it as it was.
    pipeline_of(run).begin()
    assert Tables(run).has("method_treatments")
    assert is_audited(run)
    assert read_evidence(run)


@pytest.mark.parametrize(
    ("options", "got"),
    [
        (["--model", "tiny-thinker:early"], "a run of tiny-thinker:early in .*, got one of tiny-thinker;"),
        (["--problems", "mine.jsonl"], r"a run on the problems mine\.jsonl in .*, got one of testbed;"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_run_of_another_model_or_problems_is_not_lost_for_a_forgotten_option(
    run, options, got, dry, monkeypatch, capsys
):
    monkeypatch.chdir(run.parent)
    rows = (json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(40))
    Path("mine.jsonl").write_text("\n".join(rows))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert run_main(verify, ["--out", "run", *options, *dry]) == 2
    said = capsys.readouterr().err
    assert re.search(got, said)
    assert said.endswith("go on with that run: normprobe verify --config run/config.yaml --out run\n")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_evaluation_keeps_its_size_when_the_study_goes_on(run):
    small = Study(methods=MethodSettings(tune=2, test=4, samples=2))
    pipeline = pipeline_of(run, small)
    with pipeline.session.run.stage(pipeline.labels(["methods"])["methods"]) as folder:
        copy(run / "methods", folder)
    assert states(run, None)["evidence"] == "reads methods, which has changed"
    resized = "methods.tune 2 → 128; methods.test 4 → 2048; methods.samples 2 → 8"
    assert states(run, None, "methods")["methods"] == resized
    pipeline_of(run).begin()
    assert Tables(run).has("method_treatments")


def test_a_dry_run_writes_nothing_and_estimates(tmp_path, capsys):
    assert verify(["--dry-run", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert [line.split()[0] for line in shown.splitlines()[1:9]] == WANTED
    assert "missing" in shown
    assert "Reading: batches of" in shown
    assert "Times and memory are estimates" in shown


def test_a_dry_run_for_scripts_is_one_document_of_the_same_stages(tmp_path, capsys):
    assert verify(["--dry-run", "--json", "--out", str(tmp_path / "run")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in plan["stages"]] == WANTED
    assert {stage["reason"] for stage in plan["stages"]} == {"missing"}
    assert not (tmp_path / "run").exists()
    assert in_all(stage["seconds"] for stage in plan["stages"]) in plan["notes"]
    assert all(f"{stage['gigabytes']:.1f} GB" == stage["memory"] for stage in plan["stages"])


def test_a_run_says_at_each_stage_how_long_it_and_all_that_is_left_take(run, capsys):
    shutil.rmtree(run / "evidence")
    Pipeline(Session(Study(), Run(run))).run("evidence")
    first = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"\[8/8\] evidence … about (\d+ s) of \1 left, 0\.7 GB", first)


def test_bars_are_shown_where_somebody_looks(tmp_path, monkeypatch):
    """Under pytest stderr is no terminal."""
    assert not Session(Study(), Run(tmp_path)).bars
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert Session(Study(), Run(tmp_path)).bars
    assert not Session(Study(), Run(tmp_path), progress=False).bars


def test_the_speed_of_the_run_itself_is_the_estimate(run):
    path = run / "saes" / "stage.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"work": 1000.0, "seconds": 1.0}))
    twice = changed_study(saes={"n_samples": 160_000})
    lines = stage_table(pipeline_of(run, twice).session, "saes").splitlines()
    (line,) = [line for line in lines if line.startswith("saes")]
    assert f"{160_000 * 12 * 3 / 1000 / 60:.0f} min" in line


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "unknown"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (9e4, "25 h"),
        (6.8e5, "8 days"),
    ],
)
def test_a_time_stands_in_the_largest_unit_that_it_fills_twice(seconds, shown):
    assert duration(seconds) == shown


def test_the_time_in_all_is_told_where_every_stage_is_known():
    assert in_all([60.0, 90.0]) == "In all about 2 min."
    assert in_all([60.0, None]) == in_all([]) == ""


def test_an_unfinished_stage_is_told(tmp_path):
    pipeline = pipeline_of(tmp_path / "run")
    pipeline.begin()
    with pytest.raises(ZeroDivisionError), pipeline.session.run.stage(pipeline.labels()["problems"]):
        raise ZeroDivisionError
    assert states(tmp_path / "run")["problems"] == "unfinished, resumes"


def test_a_command_on_a_run_reads_its_settings_and_changes_its_own(run, capsys):
    assert run_main(evaluate.audit, [str(run), "--dry-run", "--nulls", "3"]) == 0
    assert f"nulls {AuditSettings.nulls} → 3" in capsys.readouterr().out
    assert run_main(evaluate.main, [str(run), "--dry-run", "--quick", "--test", "5"]) == 0
    assert "methods.tune 128 → 8; methods.test 2048 → 5; methods.samples 8 → 3" in capsys.readouterr().out


def test_a_run_of_an_older_layout_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text('{"schema": 1, "identities": {}}')
    assert run_main(evaluate.main, [str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("normprobe: expected a run of schema 2 in ")
    assert line.endswith("got 1; make the run again or name another directory")


@pytest.fixture
def judged(monkeypatch) -> list[str]:
    """The claims that are judged from now on, in order."""
    names: list[str] = []

    def recorded(claim, *arguments, **options) -> None:
        names.append(claim.name)
        write_claim(claim, *arguments, **options)

    monkeypatch.setattr("normprobe.claims.registry.write_claim", recorded)
    return names


def test_a_claim_whose_version_changed_is_judged_again_and_nothing_else_runs(run, judged, monkeypatch):
    newer = [replace(claim, version=9) if claim.name == "late_spike" else claim for claim in CLAIMS]
    monkeypatch.setattr("normprobe.study_stages.CLAIMS", newer)
    before = {
        path: path.stat().st_mtime_ns for path in run.rglob("*.parquet") if "evidence" not in path.parts
    }
    verdicts = (run / "evidence" / "verdicts.json").read_text()
    found = states(run)
    assert found.pop("evidence") == f"claim late_spike version {BY_NAME['late_spike'].version} → 9"
    assert set(found.values()) == {"done"}
    pipeline_of(run).run("evidence")
    assert judged == ["late_spike"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "evidence" / "verdicts.json").read_text().count("late_spike") == verdicts.count(
        "late_spike"
    )
    assert set(states(run).values()) == {"done"}


def test_an_evaluation_has_only_its_own_claim_judged_again(run, judged):
    pipeline = pipeline_of(run, Study(methods=MethodSettings(tune=2, test=4, samples=2)))
    before = {path.name: path.read_bytes() for path in (run / "evidence").glob("*.json")}
    with pipeline.session.run.stage(pipeline.labels(["methods"])["methods"]) as folder:
        copy(run / "methods", folder)
    pipeline.run("methods", "evidence")
    assert judged == ["methods_help"]
    changed = {"keys.json", "stage.json"}
    after = {path.name: path.read_bytes() for path in (run / "evidence").glob("*.json")}
    assert {name for name in before if before[name] != after[name]} == changed
