"""The job runner: done once, in plan order, resumed, in this process and on workers; what fails is named."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normprobe.errors import NormprobeError
from normprobe.runs.directory import Run
from normprobe.runs.jobs import JSON, TABLE, JobRunner, file_name


def square(folder: Path, n: int) -> int:
    """Leaves a mark each time that it runs."""
    with (folder / f"{n}.log").open("a") as log:
        log.write("x")
    if (folder / f"refuse {n}").exists():
        raise NormprobeError(f"expected another number, got {n}; change it")
    if (folder / f"break {n}").exists():
        raise ZeroDivisionError
    if (folder / f"kill {n}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def squares(folder: Path, processes: int | None, order: list[int] | None = None) -> dict[str, int]:
    """Three squares by name; `folder` keeps the marks, `folder`/parts the results."""
    with JobRunner(folder / "parts", JSON, label="test", processes=processes, progress=False) as runner:
        return runner.run({f"number {n}": partial(square, folder, n) for n in order or [3, 1, 2]})


@pytest.mark.parametrize("processes", [None, 2])
def test_results_come_in_plan_order_and_are_made_once(tmp_path, processes):
    first = squares(tmp_path, processes)
    assert list(first.items()) == [("number 3", 9), ("number 1", 1), ("number 2", 4)]
    next((tmp_path / "parts").glob("number_1-*")).unlink()
    assert squares(tmp_path, processes) == first
    marks = {path.stem: path.read_text() for path in tmp_path.glob("*.log")}
    assert marks == {"3": "x", "1": "xx", "2": "x"}


@pytest.mark.parametrize("processes", [None, 2])
def test_a_failed_job_is_named_and_the_others_stay_done(tmp_path, processes):
    (tmp_path / "refuse 2").touch()
    with pytest.raises(NormprobeError, match=r"got 2; change it \(in the job 'number 2'\)"):
        squares(tmp_path, processes)
    (tmp_path / "refuse 2").rename(tmp_path / "break 2")
    with pytest.raises(ZeroDivisionError) as error:
        squares(tmp_path, processes)
    assert error.value.__notes__ == ["in the job 'number 2'"]
    (tmp_path / "break 2").unlink()
    assert list(squares(tmp_path, processes).values()) == [9, 1, 4]
    if processes is None:
        assert (tmp_path / "3.log").read_text() == "x"


def test_a_killed_worker_is_refused_in_one_line(tmp_path):
    (tmp_path / "kill 1").touch()
    with pytest.raises(NormprobeError, match="got one that was killed; run again, with fewer") as error:
        squares(tmp_path, 1)
    assert "\n" not in str(error.value)


def test_tables_are_kept_with_their_types(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "correct": pd.array([True, None], dtype="boolean")})
    with JobRunner(tmp_path / "parts", TABLE, label="test", progress=False) as runner:
        made = runner.run({"only": lambda: table}, size={"only": 2})
        pd.testing.assert_frame_equal(runner.run({"only": lambda: table.iloc[:0]})["only"], table)
    pd.testing.assert_frame_equal(made["only"], table)


@given(st.text(min_size=1), st.text(min_size=1))
def test_file_names_are_valid_and_tell_jobs_apart(one, other):
    for name in (one, other):
        assert len(file_name(name).encode()) < 255
        assert Path(file_name(name)).name == file_name(name)
    assert (file_name(one) == file_name(other)) is (one == other)


HOLDS = """
import sys, time
from pathlib import Path
from normprobe.runs.directory import Run
with Run(Path(sys.argv[1])).hold():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_directory_is_refused_until_its_holder_is_gone(tmp_path):
    with Run(tmp_path).hold():
        pass
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        holder.stdout.readline()
        with pytest.raises(NormprobeError) as error, Run(tmp_path).hold():
            pass
        holder.kill()
    told = str(error.value)
    assert f"held by process {holder.pid} on " in told
    assert " since 2" in told
    assert "\n" not in told
    with Run(tmp_path).hold():
        pass


WORKS = """
import os, sys, time
from pathlib import Path
from normprobe.runs.jobs import JSON, JobRunner
def job():
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)
if __name__ == "__main__":
    with JobRunner(Path(sys.argv[1]) / "parts", JSON, label="test", processes=2, progress=False) as runner:
        runner.run({str(n): job for n in range(2)})
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_die_with_their_parent(tmp_path):
    program = tmp_path / "works.py"
    program.write_text(WORKS)
    marks = tmp_path / "marks"
    marks.mkdir()
    parent = subprocess.Popen([sys.executable, str(program), str(marks)])
    deadline = time.monotonic() + 120
    while len(pids := [int(path.name) for path in marks.iterdir() if path.name.isdecimal()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_compute_on_one_thread_and_the_parent_keeps_its_setting(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with JobRunner(tmp_path, JSON, label="test", processes=1, progress=False) as runner:
        assert runner.run({"ask": partial(os.getenv, "OMP_NUM_THREADS")}) == {"ask": "1"}
    assert "OMP_NUM_THREADS" not in os.environ
