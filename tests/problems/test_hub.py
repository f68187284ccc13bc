"""Data sets of a hub, here always folders of this machine: one split of them, read as a file's rows are."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from normprobe.errors import NormprobeError
from normprobe.problems import open_source


@pytest.fixture(scope="module")
def saved() -> Dataset:
    return Dataset.from_list(
        [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(80)]
    )


def test_a_saved_data_set_is_read_as_a_file_is(tmp_path: Path, saved: Dataset) -> None:
    saved.save_to_disk(tmp_path / "mine")
    source = open_source(str(tmp_path / "mine"))
    assert source.name == f"hf:{tmp_path / 'mine'}"
    table = open_source(source.name).load({}, seed=0)
    assert table["problem_id"][3] == "mine-00003"
    assert source.score("It is 4.", table["answer"][3])
    greedy, _ = source.regimes(table)
    assert len(greedy.problems(3, "tune")) == 3


def test_of_several_splits_one_is_named(tmp_path: Path, saved: Dataset) -> None:
    DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path)
    assert len(open_source(f"hf:{tmp_path}@test").load({}, seed=0)) == 80
    with pytest.raises(NormprobeError, match=r"got several \(train, test\); name one, as in .*@test"):
        open_source(f"hf:{tmp_path}").load({}, seed=0)
    with pytest.raises(NormprobeError, match="among train, test, got 'dev'"):
        open_source(f"hf:{tmp_path}@dev").load({}, seed=0)


def test_the_fingerprint_follows_the_files(tmp_path: Path, saved: Dataset) -> None:
    saved.to_parquet(tmp_path / "train.parquet")
    source = open_source(f"hf:{tmp_path}")
    before = source.fingerprint()
    assert source.fingerprint() == before
    (tmp_path / "README.md").write_text("new")
    assert source.fingerprint() != before


def test_no_name_is_refused() -> None:
    with pytest.raises(NormprobeError, match="expected a data set as in hf:"):
        open_source("hf:")
