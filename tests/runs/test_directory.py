"""Stages are whole or absent and resume; damaged or foreign directories are refused and left untouched."""

import errno
import json
import os
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import atomic_write, atomic_write_json, atomic_write_text, refusing_disk_errors
from normprobe.runs.directory import SCHEMA, Run, StageLabel, config_hash

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CONFIGS = st.dictionaries(st.text(), VALUES, max_size=5)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` with its content: what must not change."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def label(name: str, **settings: object) -> StageLabel:
    return StageLabel(name, 1, settings, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "run", {"seed": 3})


@given(CONFIGS)
def test_hash_ignores_key_order(config):
    assert config_hash(config) == config_hash(dict(reversed(config.items())))


@given(CONFIGS, CONFIGS)
def test_hash_tells_configurations_apart(one, other):
    # Compared as JSON: Python holds 1 == True == 1.0, a configuration does not.
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (config_hash(one) == config_hash(other)) is same


def test_hash_refuses_what_a_file_cannot_hold():
    with pytest.raises(ValueError, match="not JSON compliant"):
        config_hash({"tau": float("nan")})
    with pytest.raises(TypeError):
        config_hash({"path": Path("x")})


def test_a_stage_appears_only_when_done(run):
    with run.stage(label("traces", layers=(1, 2))) as folder:
        (folder / "tokens.txt").write_text("a")
        assert folder.name == "traces.partial"
        assert not (run.path / "traces").exists()
    assert (run["traces"] / "tokens.txt").read_text() == "a"
    assert not folder.exists()
    made = run.label("traces")
    assert made is not None
    assert made.key == label("traces", layers=[1, 2]).key != label("traces", layers=[1]).key
    assert run.is_current("traces")
    assert run.label("saes") is None


def test_an_interrupted_stage_resumes_with_its_files(run):
    def interrupted():
        with run.stage(label("traces", n=1)) as folder:
            atomic_write_text(folder / "chunk_0.txt", "done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.label("traces") is None
    assert run.resumes(label("traces", n=1))
    assert not run.resumes(label("traces", n=2))
    with pytest.raises(NormprobeError, match="got an unfinished one"):
        run["traces"]
    with run.stage(label("traces", n=1)) as folder:
        assert (folder / "chunk_0.txt").read_text() == "done"
    assert (run["traces"] / "chunk_0.txt").exists()


@pytest.mark.parametrize(
    "content", [None, "{", json.dumps({"schema": SCHEMA, "settings": {"n": 1}, "key": "0"})]
)
def test_a_partial_folder_of_other_settings_is_emptied(run, content):
    partial = run.path / "traces.partial"
    partial.mkdir()
    (partial / "chunk_0.txt").write_text("stale")
    if content is not None:
        (partial / "stage.json").write_text(content)
    with run.stage(label("traces", n=1)) as folder:
        assert [path.name for path in folder.iterdir()] == ["stage.json"]


def test_a_finished_stage_survives_until_its_replacement_is_done(run):
    def make(n, fail=False):
        with run.stage(label("traces", n=n)) as folder:
            (folder / "n.txt").write_text(str(n))
            if fail:
                raise ZeroDivisionError

    make(1)
    with pytest.raises(ZeroDivisionError):
        make(2, fail=True)
    assert run.label("traces") == label("traces", n=1)
    assert (run["traces"] / "n.txt").read_text() == "1"
    make(2)
    assert (run["traces"] / "n.txt").read_text() == "2"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "manifest.json", "traces"]


def test_a_missing_stage_says_what_to_run(run):
    with pytest.raises(
        NormprobeError, match=r"finished stage 'saes' .* got none; finish it with normprobe verify"
    ):
        run["saes"]


def test_a_folder_that_is_no_stage_is_never_replaced(run):
    (run.path / "problems").mkdir()
    (run.path / "problems" / "mine.txt").write_text("keep")
    before = listing(run.path)
    with pytest.raises(NormprobeError, match=r"without a readable stage\.json"), run.stage(label("problems")):
        pass
    assert listing(run.path) == before


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "damaged"),
        ('{"schema": 2, "conf', "damaged"),
        ("[]", "damaged"),
        ('{"hash": "0"}', "damaged"),
        (json.dumps({"schema": SCHEMA + 1}), "upgrade normprobe"),
        (json.dumps({"schema": SCHEMA - 1}), "make the run again"),
    ],
)
@pytest.mark.parametrize("name", ["traces/stage.json", "manifest.json"])
def test_damaged_and_newer_files_are_refused_untouched(run, name, text, message):
    with run.stage(label("traces")):
        pass
    (run.path / name).write_text(text)
    before = listing(run.path)
    with pytest.raises(NormprobeError, match=message) as caught:
        Run.open(run.path, {"seed": 4}) if name == "manifest.json" else run.label("traces")
    assert "\n" not in str(caught.value)
    assert listing(run.path) == before


def test_the_manifest_says_what_ran(tmp_path):
    resolved = {"model": {"name": "m"}, "seed": 7, "layers": (0, 1)}
    run = Run.open(tmp_path / "deep" / "run", resolved, given={"seed": 7}, stages={"saes": "f00d"})
    run.identify(model={"name": "m", "hash": "f00d"})
    manifest = Run.load(run.path).manifest()
    assert manifest["schema"] == SCHEMA
    assert manifest["arguments"] == {
        "given": {"seed": 7},
        "resolved": {"model": {"name": "m"}, "seed": 7, "layers": [0, 1]},
    }
    assert manifest["seed"] == 7
    assert manifest["stages"] == {"saes": "f00d"}
    assert manifest["identities"] == {"model": {"name": "m", "hash": "f00d"}}
    assert manifest["environment"]["packages"]["torch"]
    assert manifest["environment"]["hardware"]["cpu_count"] == os.cpu_count()
    Run.open(run.path, {"model": "m"})
    assert run.manifest()["identities"] == {"model": {"name": "m", "hash": "f00d"}}


def test_a_stage_of_another_key_counts_as_absent(run):
    with run.stage(label("traces", seed=1)) as folder:
        (folder / "tokens.txt").write_text("a")
    run.expect({"traces": label("traces", seed=2).key})
    assert not run.is_current("traces")
    with pytest.raises(NormprobeError, match=r"finished stage 'traces' .* got one of other settings"):
        run["traces"]
    with run.stage(label("traces", seed=2)):
        pass
    assert run.is_current("traces")


def test_a_stage_knows_how_fast_it_was_unless_it_was_interrupted(run):
    with run.stage(label("traces"), work=100.0):
        pass
    rate = run.rate("traces")
    assert rate is not None
    assert rate > 1
    with pytest.raises(ZeroDivisionError), run.stage(label("saes"), work=100.0):
        raise ZeroDivisionError
    with run.stage(label("saes"), work=100.0):
        pass
    assert run.rate("saes") is None


def test_missing_places_are_refused(tmp_path):
    with pytest.raises(
        NormprobeError, match=r"expected a run directory, got .* without a readable manifest.json"
    ):
        Run.load(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NormprobeError, match="got the file"):
        Run.open(tmp_path / "file", {})
    with pytest.raises(NormprobeError, match="Not a directory"):
        Run.open(tmp_path / "file" / "run", {})


def test_a_failed_write_keeps_the_old_content(tmp_path):
    path = tmp_path / "value.json"
    atomic_write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(path, {"a": float("inf")})
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert listing(tmp_path) == {"value.json": b'{\n  "a": 1\n}\n'}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_one_line_and_the_stage_stays_unfinished(run):
    # Not a mock: the kernel answers every write to /dev/full with ENOSPC.
    with (
        pytest.raises(
            NormprobeError, match=r"No space left on device; choose a writable directory with free space"
        ),
        run.stage(label("traces")),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
        full.flush()
    assert not (run.path / "traces").exists()


@pytest.fixture
def no_space():
    """Let no file of this process grow past 4 KiB: a limit of the kernel's that behaves like a full disk."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_tensors(path: Path) -> None:
    save_file({"a": numpy.zeros(1 << 16)}, path)


def write_table(path: Path) -> None:
    pandas.DataFrame({"a": numpy.random.default_rng(0).random(1 << 16)}).to_parquet(path)


def write_text(path: Path) -> None:
    path.write_text("x" * 10_000)


@pytest.mark.parametrize("write", [write_text, write_tensors, write_table])
def test_every_writer_reports_a_disk_without_space(run, no_space, write):
    with (
        pytest.raises(NormprobeError, match="File too large; choose a writable directory") as caught,
        run.stage(label("traces")) as folder,
        atomic_write(folder / "chunk") as unfinished,
    ):
        write(unfinished)
    assert "\n" not in str(caught.value)
    assert sorted(listing(run.path)) == ["config.yaml", "manifest.json", "traces.partial/stage.json"]


def test_other_errors_pass_unchanged():
    with pytest.raises(BlockingIOError), refusing_disk_errors("here"):
        raise BlockingIOError(errno.EAGAIN, "again")
    with pytest.raises(KeyError), refusing_disk_errors("here"):
        raise KeyError("a bug")
