"""Runs that are compared by paradigm: what is refused, what is read of each, and when it is read again."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_fixture import Effects, write_run
from layout_fixture import put
from run_fixture import finish, made_problems, made_responses

from normprobe import evaluate
from normprobe.config import ParadigmSettings
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.paradigm_runs import compared_runs, run_curves
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables


def light_run(path: Path, effects: Effects, seed: int) -> Path:
    """A finished run, as far as it is read here, with planted norms and features."""
    run = Run.open(path, {"seed": 0})
    run.identify(model={"name": path.name, "n_layers": 8}, early={"weights": "base"})
    write_run(path, effects, seed=seed, n_problems=12)
    tokens = pd.read_parquet(path / "traces" / "tokens.parquet")
    put(path, "problems", made_problems(tokens))
    put(path, "responses", made_responses(tokens, np.random.default_rng(seed)))
    (path / "saes").mkdir()
    finish(run)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs: rl and sft."""
    folder = tmp_path_factory.mktemp("runs")
    light_run(folder / "rl", Effects(late_spike=1.0, thinking_norm=0.3), 0)
    light_run(folder / "sft", Effects(), 1)
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def compare(runs: Path, **names: str) -> dict[str, Tables]:
    paths = {"sft": "sft"} | names
    return compared_runs(
        runs / "rl", ParadigmSettings(**{name: str(runs / path) for name, path in paths.items()})
    )


def edit(table: Path, **columns: object) -> None:
    pd.read_parquet(table).assign(**columns).to_parquet(table)


def other_problems(sft: Path) -> None:
    path = sft / "problems" / "problems.parquet"
    edit(path, question=pd.read_parquet(path)["question"].str.replace("what is 3 ", "what is 4 "))


def other_layers(sft: Path) -> None:
    Run(sft).identify(model={"name": "sft", "n_layers": 9})


def other_base(sft: Path) -> None:
    Run(sft).identify(early={"weights": "another"})


def no_base(sft: Path) -> None:
    (sft / "traces" / "early.safetensors").unlink()


def other_dictionaries(sft: Path) -> None:
    path = sft / "reductions" / "dictionary.parquet"
    table = pd.read_parquet(path)
    table[table["layer"] > 0].to_parquet(path)


def other_training(sft: Path) -> None:
    finish(Run(sft), settings={"saes": {"saes": {"k": 8, "given": "x"}}})


def unfinished(sft: Path) -> None:
    shutil.rmtree(sft / "reductions")


def thoughtless(sft: Path) -> None:
    edit(sft / "responses" / "responses.parquet", truncated=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_problems, r"expected the measured problems of \S+rl in \S+sft, got 11 of 12 and 1 others"),
        (other_layers, r"expected the layers of \S+rl in \S+sft, got 9 instead of 8"),
        (other_base, r"expected the base \(--early\) of \S+rl in \S+sft, got another instead of base"),
        (no_base, r"expected the common base as early checkpoint in \S+sft, got none"),
        (other_dictionaries, r"expected the layers with dictionaries of .* got \[1, 2, 3, 4, 5, 6, 7\] instead of"),
        (other_training, r"expected the saes.k of \S+rl in \S+sft, got 8 instead of None; verify one"),
        (unfinished, r"expected the finished stage 'reductions' in \S+sft, got none; finish it with normprobe verify"),
        (thoughtless, r"expected a model that thinks when it is asked to in \S+sft, but in think 24 of 24 responses"),
        (shutil.rmtree, r"expected a run directory, got \S+sft without a readable manifest.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line_and_leaves_nothing(runs, capsys, change, message):
    change(runs / "sft")
    with pytest.raises(NormprobeError, match=message):
        compare(runs)
    (runs / "rl" / "config.yaml").write_text("seed: 0\n")
    assert run_main(evaluate.paradigm, [str(runs / "rl"), "--sft", str(runs / "sft")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("normprobe: expected")
    assert not list(runs.rglob("paradigm*"))


def test_the_run_of_sft_has_to_be_named_and_no_run_twice(runs):
    with pytest.raises(
        NormprobeError, match="expected --sft RUN, a run of a model that SFT made of the same base"
    ):
        compared_runs(runs / "rl", ParadigmSettings())
    for names in ({"sft": "rl"}, {"sft_again": "sft"}, {"rl_again": "../runs/rl"}):
        with pytest.raises(NormprobeError, match="expected runs of different directories"):
            compare(runs, **names)


def test_further_seeds_are_compared_with_this_run_too(runs):
    shutil.copytree(runs / "sft", runs / "seed")
    assert list(compare(runs, sft_again="seed")) == ["RL", "SFT", "SFT again"]
    other_base(runs / "seed")
    with pytest.raises(NormprobeError, match=r"expected the base \(--early\) of \S+rl in \S+seed"):
        compare(runs, sft_again="seed")


def test_the_curves_are_means_over_the_tokens_of_each_problem(finished):
    tables = Tables(finished / "rl")
    curves = run_curves(tables).set_index(["subject", "scope", "problem_id", "layer"]).sort_index()
    tokens = tables.tokens
    for mode in ("think", "no_think"):
        of_problem = (tokens["problem_id"] == "p003") & (tokens["mode"] == mode)
        for scope, segments in (("response", ["thought", "answer"]), ("answer", ["answer"])):
            rows = np.flatnonzero(of_problem & tokens["segment"].isin(segments))
            found = curves.loc["untrained", scope, "p003"]
            expected = tables.signals("untrained")["norm"][:, rows].mean(axis=1, dtype=float)
            np.testing.assert_allclose(found[f"norm_{mode}"], expected)
            z = tables.z("untrained")["z_reasoning"][:, rows].mean(axis=1, dtype=float)
            np.testing.assert_allclose(found[f"z_{mode}"], z)
    right = tables.responses.set_index("response_id")["correct"]
    assert (curves.loc["model", "response", "p005"]["correct"] == float(right["p005/think/0"])).all()
    assert set(curves.index.get_level_values("problem_id")) == {f"p{i:03d}" for i in range(1, 24, 2)}


def test_a_base_with_fewer_features_is_not_read_for_them(runs):
    path = runs / "rl" / "reductions" / "dictionary.parquet"
    table = pd.read_parquet(path)
    few = (table["reader"] == "early") & (table["layer"] == 3)
    edit(path, n_selected=table["n_selected"].mask(few, 1))
    curves = run_curves(Tables(runs / "rl")).set_index("subject")
    assert curves.loc["early", "z_think"].isna().all()
    assert curves.loc["model", "z_think"].notna().all()
    assert curves.loc["early", "norm_think"].notna().all()


def test_another_run_or_one_that_changed_is_another_identity(runs):
    def identity(**names: str) -> dict[str, object]:
        return ParadigmSettings(**{name: str(runs / path) for name, path in names.items()}).identity()

    before = identity(sft="sft")
    assert before["rl_again"] is None
    shutil.copytree(runs / "sft", runs / "copy")
    assert identity(sft="copy") == before  # the same run elsewhere
    assert identity(sft="sft", sft_again="copy") != before
    finish(Run(runs / "sft"), settings={"traces": {"early": "another"}})
    assert identity(sft="sft") != before
    assert dataclasses.asdict(ParadigmSettings()) == ParadigmSettings().identity()
