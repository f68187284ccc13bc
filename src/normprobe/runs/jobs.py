"""Named jobs, each with its result in a file: what is there is not done again, so a killed stage resumes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
from tqdm import tqdm

from normprobe.errors import NormprobeError
from normprobe.runs.atomic import atomic_write_json, read_table, write_table
from normprobe.runs.process_variables import environment_variables

T = TypeVar("T")
Job = Callable[[], T]
"""One piece of work. On worker processes it is pickled to get there, and opens by itself what it needs."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class ResultFormat(Generic[T]):
    """How a result is kept: `write(path, result)` leaves a whole file or none, `read(path)` gives the result back."""

    suffix: str
    write: Callable[[Path, T], None]
    read: Callable[[Path], T]


TABLE: ResultFormat[pd.DataFrame] = ResultFormat(".parquet", write_table, read_table)
JSON: ResultFormat[Any] = ResultFormat(
    ".json", atomic_write_json, lambda path: json.loads(path.read_text(encoding="utf-8"))
)


class JobRunner(Generic[T]):
    """Runs jobs whose results are missing in `folder`, under one progress bar with the time left.

    processes: how many worker processes, of one thread each; None runs the jobs in this process, in the given order.
    total: how much work is to come in all calls of `run`, in units of `unit`; it grows if there is more.
    Used as a context manager; the worker processes live until it ends, and die with the process that started them.
    """

    def __init__(
        self,
        folder: Path,
        kept_as: ResultFormat[T],
        *,
        label: str,
        total: int = 0,
        unit: str = "part",
        processes: int | None = None,
        progress: bool = True,
    ) -> None:
        self._folder, self._kept_as, self._label, self._processes = folder, kept_as, label, processes
        self._total, self._unit, self._progress = total, unit, progress
        self._planned = 0
        self._pool: ProcessPoolExecutor | None = None
        self._open = ExitStack()

    def __enter__(self) -> JobRunner[T]:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bar = self._open.enter_context(
            tqdm(total=self._total, desc=self._label, unit=self._unit, disable=not self._progress)
        )
        if self._processes is not None:
            # The processes are the parallelism: each computes on one thread.
            self._open.enter_context(environment_variables(dict.fromkeys(_THREADS, "1")))
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self._processes, mp_context=spawn, initializer=die_with_parent)
            self._pool = self._open.enter_context(pool)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None and error[0] is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._open.close()

    def run(
        self, jobs: Mapping[str, Job[T]], *, label: str | None = None, size: Mapping[str, int] | None = None
    ) -> dict[str, T]:
        """The result of each job by its name, in the order of `jobs`; those whose file is missing are done first.

        size: units of work by name, 1 each by default. Raises what a job raised, with the job's name; results
        finished before that are kept.
        """
        sizes = dict.fromkeys(jobs, 1) if size is None else size
        paths = {name: self._folder / f"{file_name(name)}{self._kept_as.suffix}" for name in jobs}
        missing = {name: job for name, job in jobs.items() if not paths[name].exists()}
        if label is not None:
            self._bar.set_description(f"{self._label}: {label}")
        self._plan(sum(sizes.values()), done=sum(sizes[name] for name in jobs if name not in missing))
        for name, result in self._results(missing):
            self._kept_as.write(paths[name], result)
            self._bar.update(sizes[name])
        return {name: self._kept_as.read(path) for name, path in paths.items()}

    def _plan(self, work: int, *, done: int) -> None:
        if self._bar.disable:
            return
        self._planned += work
        self._bar.total = max(self._bar.total or 0, self._planned)
        self._bar.initial += done  # what was done in an earlier life says nothing about the speed of this one
        self._bar.n += done
        self._bar.refresh()

    def _results(self, jobs: Mapping[str, Job[T]]) -> Iterator[tuple[str, T]]:
        """Each result as soon as it is there."""
        if self._pool is None:
            for name, job in jobs.items():
                with _naming(name):
                    result = job()
                yield name, result
            return
        waiting = {self._pool.submit(job): name for name, job in jobs.items()}
        for done in as_completed(waiting):
            with _naming(waiting[done]):
                result = done.result()
            yield waiting[done], result


def file_name(name: str) -> str:
    """A file name for a job's name: itself if that is one, else its readable part with a hash of all of it."""
    readable = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:60]
    if readable == name:
        return name
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@contextmanager
def _naming(job: str) -> Iterator[None]:
    """Add the job's name to an error in the block."""
    try:
        yield
    except BrokenProcessPool as error:
        raise NormprobeError(
            f"expected the worker processes to finish {job!r}, got one that was killed; "
            "run again, with fewer processes if memory was short"
        ) from error
    except NormprobeError as error:
        raise NormprobeError(f"{error} (in the job {job!r})") from error
    except Exception as error:
        error.add_note(f"in the job {job!r}")
        raise


def die_with_parent() -> None:
    """End this worker when its parent is gone: after kill −9 nobody else tells it, and it would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers call this"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
