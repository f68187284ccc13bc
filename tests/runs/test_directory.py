"""Stages are whole or absent and resume; damaged or foreign directories are refused and left untouched."""

import errno
import json
import os
from pathlib import Path

import numpy
import pandas
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from normprobe.errors import NormprobeError
from normprobe.runs.directory import SCHEMA, Run, config_hash, read_config
from normprobe.runs.files import atomic_write, atomic_write_json, atomic_write_text, refusing_disk_errors

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CONFIGS = st.dictionaries(st.text(), VALUES, max_size=5)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` with its content: what must not change."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    with run.stage("traces", {"layers": (1, 2)}) as folder:
        (folder / "tokens.txt").write_text("a")
        assert folder.name == "traces.partial"
        assert not (run.path / "traces").exists()
    assert (run["traces"] / "tokens.txt").read_text() == "a"
    assert not folder.exists()
    assert run.stage_complete("traces", {"layers": [1, 2]})
    assert not run.stage_complete("traces", {"layers": [1]})
    assert not run.stage_complete("saes", {})


def test_an_interrupted_stage_resumes_with_its_files(run):
    def interrupted():
        with run.stage("traces", {"n": 1}) as folder:
            atomic_write_text(folder / "chunk_0.txt", "done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not run.stage_complete("traces", {"n": 1})
    with pytest.raises(NormprobeError, match="got an unfinished one"):
        run["traces"]
    with run.stage("traces", {"n": 1}) as folder:
        assert (folder / "chunk_0.txt").read_text() == "done"
    assert (run["traces"] / "chunk_0.txt").exists()


@pytest.mark.parametrize(
    "label", [None, "{", json.dumps({"schema": SCHEMA, "config": {"n": 1}, "hash": "0"})]
)
def test_a_partial_folder_of_another_configuration_is_emptied(run, label):
    partial = run.path / "traces.partial"
    partial.mkdir()
    (partial / "chunk_0.txt").write_text("stale")
    if label is not None:
        (partial / "stage.json").write_text(label)
    with run.stage("traces", {"n": 1}) as folder:
        assert [path.name for path in folder.iterdir()] == ["stage.json"]


def test_a_finished_stage_survives_until_its_replacement_is_done(run):
    def make(n, fail=False):
        with run.stage("traces", {"n": n}) as folder:
            (folder / "n.txt").write_text(str(n))
            if fail:
                raise ZeroDivisionError

    make(1)
    with pytest.raises(ZeroDivisionError):
        make(2, fail=True)
    assert run.stage_complete("traces", {"n": 1})
    assert (run["traces"] / "n.txt").read_text() == "1"
    make(2)
    assert (run["traces"] / "n.txt").read_text() == "2"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "manifest.json", "traces"]


def test_a_missing_stage_says_what_to_run(run):
    with pytest.raises(
        NormprobeError, match=r"finished stage 'saes' .* got none; run normprobe verify --out"
    ):
        run["saes"]


def test_a_folder_that_is_no_stage_is_never_replaced(run):
    (run.path / "problems").mkdir()
    (run.path / "problems" / "mine.txt").write_text("keep")
    before = listing(run.path)
    with pytest.raises(NormprobeError, match=r"without a readable stage\.json"), run.stage("problems", {}):
        pass
    assert listing(run.path) == before


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "damaged"),
        ('{"schema": 1, "conf', "damaged"),
        ("[]", "damaged"),
        ('{"hash": "0"}', "damaged"),
        (json.dumps({"schema": SCHEMA + 1}), "upgrade normprobe"),
    ],
)
@pytest.mark.parametrize("name", ["traces/stage.json", "manifest.json"])
def test_damaged_and_newer_files_are_refused_untouched(run, name, text, message):
    with run.stage("traces", {}):
        pass
    (run.path / name).write_text(text)
    before = listing(run.path)
    with pytest.raises(NormprobeError, match=message) as caught:
        Run.open(run.path, {"seed": 4}).stage_complete("traces", {}) if name == "manifest.json" else run[
            "traces"
        ]
    assert "\n" not in str(caught.value)
    assert listing(run.path) == before


def test_the_manifest_says_what_ran(tmp_path):
    run = Run.open(
        tmp_path / "deep" / "run", {"model": "m"}, resolved={"model": "m", "seed": 7, "layers": (0, 1)}
    )
    run.identify(model={"name": "m", "hash": "f00d"})
    manifest = Run.load(run.path).manifest()
    assert manifest["schema"] == SCHEMA
    assert manifest["arguments"] == {
        "given": {"model": "m"},
        "resolved": {"model": "m", "seed": 7, "layers": [0, 1]},
    }
    assert manifest["seed"] == 7
    assert manifest["identities"] == {"model": {"name": "m", "hash": "f00d"}}
    assert manifest["environment"]["packages"]["torch"]
    assert manifest["environment"]["hardware"]["cpu_count"] == os.cpu_count()
    Run.open(run.path, {"model": "m"})
    assert run.manifest()["identities"] == {"model": {"name": "m", "hash": "f00d"}}


@settings(max_examples=25)
@given(CONFIGS)
def test_the_configuration_replays(tmp_path_factory, config):
    run = Run.open(tmp_path_factory.mktemp("replay") / "run", config)
    assert read_config(run.path / "config.yaml", known=config.keys()) == config


def test_a_configuration_with_unknown_keys_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 1, "sede": 2}))
    with pytest.raises(NormprobeError, match=r"expected only the keys out, seed in .* got sede; remove"):
        read_config(tmp_path / "config.yaml", known={"seed", "out"})


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n- 2", b"", b"\xff\xfe\x00"])
def test_an_unreadable_configuration_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(NormprobeError) as caught:
        read_config(tmp_path / "config.yaml", known=set())
    assert "\n" not in str(caught.value)


def test_missing_places_are_refused(tmp_path):
    with pytest.raises(NormprobeError, match="No such file"):
        read_config(tmp_path / "none.yaml", known=set())
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
        run.stage("traces", {}),
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
        run.stage("traces", {}) as folder,
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
