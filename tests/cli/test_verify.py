"""The whole study, small: what it writes, that it is not run twice, that it replays, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from digests import DIGESTS, STUDY, differences, digests, of_table, run_study

import normprobe
from normprobe import evaluate, verify
from normprobe.claims.methods_help import BASELINES
from normprobe.claims.registry import CLAIMS
from normprobe.console import run_main
from normprobe.experiments import methods
from normprobe.experiments.method_settings import papers, sensitivity, sweep
from normprobe.layer_profile import LayerProfile
from normprobe.models.open import open_model
from normprobe.problems import bundled
from normprobe.problems.testbed.source import BundledProblems
from normprobe.report.audit_results import Audit
from normprobe.report.html import write_report
from normprobe.runs.tables import Tables
from normprobe.study_file import read_study

TABLES_OF_METHODS = ("sweep", "confirmed", "treatments", "selection", "sensitivity", "combinations")
FIELDS = "claim statement verdict rule estimate unit interval n n_unit controls seed".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(tmp_path_factory.mktemp("runs") / "small")


def document(command: Callable[[list[str]], int | None], arguments: list[str], capsys) -> dict[str, Any]:
    """What a command prints for scripts: one JSON document, and nothing else."""
    capsys.readouterr()
    command([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_run_leaves_evidence_profile_and_report(run: Path) -> None:
    verdicts = json.loads((run / "evidence" / "verdicts.json").read_text())
    assert len(verdicts) == len(CLAIMS) - 2
    for entry in verdicts:
        assert set(FIELDS) <= set(entry)
        assert entry["verdict"] in {"supported", "not supported", "inconclusive", "vacuous"}
        assert entry["controls"]
    skipped = json.loads((run / "evidence" / "skipped.json").read_text())
    # which `normprobe paradigm` and `normprobe evaluate` prepare
    assert [entry["claim"] for entry in skipped] == ["paradigm", "methods_help"]
    profile = LayerProfile.load(run / "layer_profile.json")
    assert len(profile.tau) == 12
    assert (run / "report.html").read_text().startswith("<!")
    assert not list(run.glob("*.partial"))


def test_a_study_gives_the_numbers_it_always_gave(run: Path) -> None:
    assert list(differences(json.loads(DIGESTS.read_text()), digests(run))) == []


def test_a_digest_tells_what_changed() -> None:
    table = pd.DataFrame({"id": ["a", "b"], "norm": [1.0, 2.0]})
    old = of_table(table)
    assert list(differences(old, of_table(table.assign(norm=[1.00001, 2.0])))) == []
    for changed, where in (
        (table.assign(norm=[1.1, 2.0]), "/floats/norm/mean: 1.5, now 1.55"),
        (table.assign(norm=[np.nan, 2.0]), "/floats/norm/not finite: 0, now 1"),
        (table.assign(id=["a", "c"]), "/exact: "),
        (table.iloc[:1], "/rows: 2, now 1"),
        (table.rename(columns={"norm": "length"}), "/floats/length: only now"),
    ):
        assert any(line.startswith(where) for line in differences(old, of_table(changed))), where


def test_a_finished_run_is_not_run_again_and_loads_no_model(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    program = (
        "import sys; from normprobe.verify import main; "
        f"code = main({[*STUDY, '--out', str(run)]!r}); assert code == 0; assert 'torch' not in sys.modules"
    )
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "norm_tracks_features" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}


def test_for_scripts_it_prints_one_document_and_nothing_else(run: Path, capsys) -> None:
    found = document(verify.main, [*STUDY, "--out", str(run)], capsys)
    assert found["verdicts"] == json.loads((run / "evidence" / "verdicts.json").read_text())
    assert {row["mode"] for row in found["conditions"]} == {"think", "no_think", "filler"}
    assert Path(found["report"]) == run / "report.html"


def test_python_gives_the_run_with_its_verdicts_and_does_not_run_it_twice(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    problems = {"n_sae": 16, "n_select": 16, "n_measure": 24}
    saes = {"width": 32, "n_samples": 1024, "trainer": "sae_lens"}
    results = normprobe.verify("tiny-thinker", run, problems=problems, saes=saes, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    verdicts = json.loads((run / "evidence" / "verdicts.json").read_text())
    assert list(results.verdicts["claim"]) == [entry["claim"] for entry in verdicts]
    assert (run / "report.html").exists()


def test_a_run_leaves_the_configuration_that_replays_it(run: Path) -> None:
    study = read_study(run / "config.yaml")
    assert (study.problems.n_measure, study.saes.width, study.saes.k) == (24, 32, 16)


def test_strict_fails_where_a_claim_does(run: Path) -> None:
    verdicts = {e["verdict"] for e in json.loads((run / "evidence" / "verdicts.json").read_text())}
    assert verify.main([*STUDY, "--out", str(run), "--strict"]) == (0 if verdicts == {"supported"} else 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny-thinker:late", "--problems", "testbed"], "expected a bundled model"),
        (["--model", "/nowhere"], "expected --problems FILE for the model /nowhere"),
        (["--model", "/nowhere", "--problems", "testbed"], "expected"),
        (["--problems", "/nowhere.parquet"], "expected"),
        (["--layers", "9-7"], "expected saes.layers as in 20-23,27"),
        (["--layers", "40", *STUDY], "expected layers between 0 and 11"),
        (["--layers", "3-99", "--dry-run"], "expected layers between 0 and 11, got 3-99"),
        (["--n-measure", "3"], "expected at least 8 problems in split 'measure'"),
        (["--config", "/nowhere.yaml"], "expected a study in YAML, got /nowhere.yaml"),
        (["--device", "abacus", "--dry-run"], "expected model.device as auto, cpu"),
        (["--device", "xpu", *STUDY], "expected a device that torch can use here"),
        (["--saes", "nowhere", "--dry-run"], "expected a folder of dictionaries, or RELEASE:ID"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run_main(verify.main, [*arguments, "--out", str(out)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("normprobe: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (out / "evidence").exists()
    assert not (out / "report.html").exists()


def test_a_directory_that_cannot_be_made_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(verify.main, [*STUDY, "--out", "/proc/run"]) == 2
    assert (
        capsys.readouterr().err
        == "normprobe: expected a directory that can be made, got /proc/run; name another one\n"
    )


def test_a_cell_that_cannot_be_is_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"{i} + 1 ?", "answer": str(i + 1)} for i in range(60)]
    problems, out = tmp_path / "problems.jsonl", tmp_path / "run"
    problems.write_text("\n".join(map(json.dumps, [*rows, {"question": "2 + 2 ?", "answer": ""}])))
    assert run_main(verify.main, ["--problems", str(problems), "--out", str(out)]) == 2
    assert "in row 61" in capsys.readouterr().err
    assert not out.exists()


def test_the_untrained_twin_is_the_recorded_initialisation() -> None:
    from normprobe.models.open import open_model
    from normprobe.training.tiny_thinker.train import untrained_model

    twin = open_model("tiny-thinker:untrained", check=False).model.state_dict()
    exact = untrained_model(bundled.initial_seed()).state_dict()
    assert all(bool((twin[name] == exact[name]).all()) for name in exact)


def test_the_audit_of_a_run_fills_its_report_and_is_not_made_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(run, tmp_path / "audited")
    arguments = [str(copy), *"--nulls 1 --trained 1 --problems 24 --samples 25 --sae-samples 1024".split()]
    assert evaluate.audit([*arguments, "--processes", "2"]) == 0
    audit = Audit.load(copy)
    assert set(audit.claims) == {claim.name for claim in CLAIMS} - {"methods_help", "paradigm"}
    for claim in audit.claims:
        assert audit.alarms(claim, trained=False)[1] == audit.alarms(claim, trained=True)[1] == 1
    assert {row["verdict"] for row in audit.planted.values()} <= {"supported", "inconclusive"}
    assert set(audit.subjects) == {"untrained", "early"}
    assert all(regime in audit.text() for row in audit.rows() for regime in row)
    assert "This run was not audited" not in write_report(copy).read_text()
    before = {path: path.stat().st_mtime_ns for path in (copy / "audit").iterdir()}
    assert before
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", None)
    found = document(evaluate.audit, arguments, capsys)
    assert found["faults"] == audit.faults()
    assert {(row["claim"], row["n"]) for row in found["nulls"]} == {(claim, 1) for claim in audit.claims}
    assert set(found["subjects"]) == {"untrained", "early"}
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_dictionaries_of_a_run_are_evaluated_once(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "evaluated")
    arguments = [str(copy), "--problems", "2"]
    evaluate.dictionaries(arguments)
    printed = capsys.readouterr().out
    assert "Loss recovered" in printed
    assert printed.splitlines()[-1] == f"report: {copy / 'report.html'}"
    tables = Tables(copy)
    assert set(tables.fidelity["layer"]) == set(tables.stability["layer"]) == set(range(12))
    assert (copy / "dictionaries/model_again_1/layer_11/cfg.json").is_file()
    before = {path: path.stat().st_mtime_ns for path in (copy / "dictionaries").rglob("*.parquet")}
    found = document(evaluate.dictionaries, arguments, capsys)
    assert len(found["fidelity"]) == len(tables.fidelity)
    assert sum(row["n"] for row in found["stability"]) == len(tables.stability)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_sentences_are_tried_once_and_only_their_claim_is_judged_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "tried")
    before = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    arguments = [str(copy), "--problems", "12", "--draws", "5", "--temperature", "1.5"]
    evaluate.importance([*arguments, "--dry-run"])
    assert re.search(r"Importance: about [\d,]+ continuations, [\d,]+ tokens", capsys.readouterr().out)
    assert not (copy / "importance").exists()
    evaluate.importance(arguments)
    printed = capsys.readouterr().out
    assert "of 12 thoughts" in printed
    assert "marks_critical_steps: " in printed
    assert printed.splitlines()[-1] == f"report: {copy / 'report.html'}"
    tables = Tables(copy)
    n = tables.importance.groupby("response_id").size()
    assert len(tables.importance_draws) == 5 * (n + 1).sum()
    after = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    changed = [name for name, entry in after.items() if entry != before[name]]
    assert changed in ([], ["marks_critical_steps"])  # it has few sentences here that differ
    written = {path: path.stat().st_mtime_ns for path in (copy / "importance").iterdir()}
    found = document(evaluate.importance, arguments, capsys)
    assert [row["text"] for row in found["sentences"]] == list(tables.importance["text"])
    assert found["evidence"] == after["marks_critical_steps"]
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_two_runs_are_compared_once_and_only_their_claim_is_judged(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the place of the SFT: tiny-thinker with a little noise in its weights, which answers as often right."""
    opened = open_model("tiny-thinker", check=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for matrix in (p for p in opened.model.parameters() if p.ndim > 1):
            matrix += 0.02 * matrix.std() * torch.randn(matrix.shape, generator=generator)
    opened.model.save_pretrained(tmp_path / "model")
    opened.tokenizer.save_pretrained(tmp_path / "model")
    study = read_study(run / "config.yaml")
    model = replace(study.model, name=str(tmp_path / "model"), early="tiny-thinker:early")
    study = replace(study, model=model, problems=replace(study.problems, source="testbed"))
    for stage in ("reductions", "traces"):
        verify.run_until(stage, study, tmp_path / "sft", progress=False)
    copy = shutil.copytree(run, tmp_path / "rl")
    before = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    arguments = [str(copy), "--sft", str(tmp_path / "sft")]
    assert run_main(evaluate.paradigm, [str(copy), "--sft", str(copy)]) == 2
    evaluate.paradigm([*arguments, "--dry-run"])
    assert not (copy / "paradigm").exists()
    evaluate.paradigm(arguments)
    assert "paradigm" in capsys.readouterr().out
    after = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    assert {name: entry for name, entry in after.items() if name != "paradigm"} == before
    assert after["paradigm"]["n"] == 24
    assert after["paradigm"]["decision"]["missing"] == []
    identities = json.loads((copy / "manifest.json").read_text())["identities"]
    assert identities["SFT"]["run"] == str(tmp_path / "sft")
    of = {(c["form"], c["name"]): c["estimate"] for c in after["paradigm"]["controls"]}
    assert of["rise of the spike", "RL"] == pytest.approx(before["late_spike"]["estimate"])
    written = (copy / "paradigm" / "curves.parquet").stat().st_mtime_ns
    evaluate.paradigm(arguments)
    assert (copy / "paradigm" / "curves.parquet").stat().st_mtime_ns == written
    verify.run_until("evidence", read_study(copy / "config.yaml"), copy, progress=False)  # keeps it
    assert Tables(copy).has("paradigm")


def test_a_run_that_is_not_finished_is_not_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(evaluate.audit, [str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("normprobe: expected")


def test_the_evaluation_of_a_run_adds_the_claim_and_is_not_made_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer regimes and settings, and of these one of each kind: the full grid takes minutes at any size.
    regimes = BundledProblems().regimes(pd.DataFrame())
    monkeypatch.setattr(BundledProblems, "regimes", lambda _self, _problems: regimes[:2])
    monkeypatch.setattr(methods, "sweep", lambda profile: [*papers(profile)[:2], *sweep(profile)[-1:]])
    monkeypatch.setattr(methods, "sensitivity", lambda profile: dict(list(sensitivity(profile).items())[-2:]))
    copy = shutil.copytree(run, tmp_path / "evaluated")
    before = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    arguments = [str(copy), "--tune", "2", "--test", "12", "--samples", "2", "--processes", "2"]
    evaluate.main(arguments)
    verdicts = {e["claim"]: e for e in json.loads((copy / "evidence" / "verdicts.json").read_text())}
    assert verdicts.keys() == before.keys() | {"methods_help"}
    assert {name: entry for name, entry in verdicts.items() if name in before} == before
    assert verdicts["methods_help"]["n"] == 12
    assert "methods_help" in capsys.readouterr().out
    made = {name: pd.read_parquet(copy / "methods" / f"{name}.parquet") for name in TABLES_OF_METHODS}
    treatments = made["treatments"]
    assert (treatments.groupby("treatment").size() == 12).all()
    assert {"plain", "ALRR", "ERSS", "CAA", "ALRR + ERSS", *BASELINES["ALRR"], *BASELINES["ERSS"]} <= set(
        treatments["treatment"]
    )
    assert (treatments.loc[treatments["treatment"] == "plain", "n_passes"] == 0).all()
    assert (treatments.loc[treatments["treatment"] == "ALRR: always on", "extra_passes"] > 0).all()
    assert list(made["sweep"].groupby("regime", sort=False).size()) == [3, 3]
    assert (made["sensitivity"]["n"] == 3).all()
    combined = made["combinations"].groupby("combination")["problem_id"].nunique()
    assert (combined == 3).all()
    assert {"plain, greedy", "ERSS + LRS", "ALRR + ERSS + LRS"} <= set(combined.index)
    parts = {path: path.stat().st_mtime_ns for path in (copy / "methods").iterdir()}
    found = document(evaluate.main, arguments, capsys)
    assert {path: path.stat().st_mtime_ns for path in (copy / "methods").iterdir()} == parts
    assert {entry["claim"]: entry for entry in found["verdicts"]} == verdicts


def test_the_features_of_a_run_get_pages_and_are_not_read_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "features")
    arguments = [str(copy), "--per-layer", "1", "--n-injected", "4"]
    plan = document(evaluate.features, [*arguments, "--dry-run"], capsys)
    assert [stage["stage"] for stage in plan["stages"] if stage["state"] == "to run"] == ["features"]
    evaluate.features(arguments)
    assert "reasoning features" in capsys.readouterr().out
    pages = pd.read_parquet(copy / "features" / "pages.parquet")
    assert pages["kind"].value_counts().to_dict() == {"reasoning": 12, "matched": 12}
    assert (copy / "features.html").is_file()
    assert 'href="features.html"' in (copy / "report.html").read_text(encoding="utf-8")
    before = (copy / "features" / "pages.parquet").stat().st_mtime_ns
    found = document(evaluate.features, arguments, capsys)
    assert [row["feature"] for row in found["features"]] == list(pages["feature"])
    assert (found["run"], found["pages"]) == (str(copy), str(copy / "features.html"))
    assert (copy / "features" / "pages.parquet").stat().st_mtime_ns == before
