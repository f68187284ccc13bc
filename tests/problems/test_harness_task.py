"""Tasks of lm-evaluation-harness as problems: a task file of one's own on data of this machine."""

import json
from pathlib import Path

import pytest

from normprobe.errors import NormprobeError
from normprobe.problems import open_source

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "Q: {{{{question}}}}"
doc_to_target: {target}
{more}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def task(folder: Path, kind: str, target: str, more: str = "") -> str:
    rows = [{"question": f"What is {i}?", "answer": f"so\n#### {i}", "k": i % 3} for i in range(80)]
    data, path = folder / "data.jsonl", folder / f"own_{kind}.yaml"
    data.write_text("\n".join(map(json.dumps, rows)))
    path.write_text(TASK.format(name=path.stem, data=data, kind=kind, target=target, more=more))
    return f"lm-eval:{path}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_generative_task_gives_its_questions_and_targets(tmp_path: Path) -> None:
    source = open_source(task(tmp_path, "generate_until", '"{{answer}}"'))
    table = source.load({}, seed=0)
    assert table["question"][7] == "Q: What is 7?"
    assert source.score("The answer is 7.", table["answer"][7])
    assert set(table["split"]) == {"sae", "select", "measure"}
    assert len(source.regimes(table)) == 2


def test_choices_are_lettered(tmp_path: Path) -> None:
    source = open_source(task(tmp_path, "multiple_choice", "k", "doc_to_choice: [red, green, blue]"))
    table = source.load({}, seed=0)
    assert "(A) red\n(B) green\n(C) blue" in table["question"][7]
    assert table["answer"][7] == "B"


def test_what_scores_given_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NormprobeError, match="a task that generates or offers choices"):
        open_source(task(tmp_path, "loglikelihood", '"{{answer}}"')).load({}, seed=0)


@pytest.mark.parametrize("name", ["lm-eval:", "lm-eval:absent.yaml"])
def test_no_task_is_refused(name: str) -> None:
    with pytest.raises(NormprobeError, match="expected a task as in lm-eval:gsm8k"):
        open_source(name)


def test_a_bare_name_may_be_a_task() -> None:
    assert open_source("gsm8k").name == "lm-eval:gsm8k"
    assert open_source("gsm8k_cot").name == "lm-eval:gsm8k_cot"
    for name in ("tesbed", "math", "../gsm8k", "gsm*", ""):
        with pytest.raises(NormprobeError, match="expected problems as"):
            open_source(name)
