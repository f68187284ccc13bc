"""Where a name leads on this machine, and that a fingerprint is of what is there and not of what it is called."""

import shutil

import pytest

from normprobe.errors import NormprobeError
from normprobe.local_files import fingerprint, hub_origin, local_path

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def cache(tmp_path):
    """A model's folder in the hub's cache: two snapshots, main is the second."""
    folder = tmp_path / "models--org--thinker"
    for commit in COMMITS:
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text(commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMITS[1])
    return folder


def test_a_folder_of_the_hubs_cache_leads_to_a_snapshot(cache):
    first, second = (cache / "snapshots" / commit for commit in COMMITS)
    assert local_path(str(cache)) == second
    assert local_path(str(cache), COMMITS[0]) == first
    assert local_path(str(first)) == first
    assert hub_origin(first) == ("org/thinker", COMMITS[0])
    assert hub_origin(cache) is None
    shutil.rmtree(cache / "refs")
    shutil.rmtree(first)
    assert local_path(str(cache)) == second


def test_a_snapshot_that_is_not_there_is_told(cache):
    with pytest.raises(NormprobeError, match=f"snapshot of v2 .* got {COMMITS[0]}, {COMMITS[1]}"):
        local_path(str(cache), "v2")
    shutil.rmtree(cache / "refs")
    with pytest.raises(NormprobeError, match="snapshot of main"):
        local_path(str(cache))


def test_a_name_of_the_hub_is_no_path():
    assert local_path("org/thinker") is None
    assert fingerprint("org/thinker", "v1") == "org/thinker@v1"


def test_fingerprints_are_of_the_files(cache, tmp_path):
    first, second = (cache / "snapshots" / commit for commit in COMMITS)
    assert fingerprint(str(first)) != fingerprint(str(second)) == fingerprint(str(cache))
    shutil.copytree(second, tmp_path / "tiny-thinker")
    assert fingerprint(str(tmp_path / "tiny-thinker")) == fingerprint(str(second))
    (tmp_path / "tiny-thinker" / "notes.md").write_text("not part of the model")
    assert fingerprint(str(tmp_path / "tiny-thinker")) == fingerprint(str(second))
