"""Many hostile inputs for every reader, each within bounds of time and memory, and one table of what came of them.

    python tests/fuzz/campaign.py --inputs 1000000

An input passes if it is accepted, or refused by a NormprobeError of one line. It fails if it raises anything else,
takes longer than `DEADLINE` or more memory than `MEMORY`, ends the process, writes outside its folder, starts a
program, opens a connection or has a pickle name something. Inputs are numbered: `--reader NAME --only NUMBER` tries one
again with its traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
DEADLINE = 60.0
"""Seconds that an input may take: many times what the slowest takes on a free core."""
MEMORY = 2**30
"""Bytes that an input may make the process grow by."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class"}
_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
}


@dataclass
class Results:
    """What came of inputs. slowest: seconds; peak: bytes that the process grew by; faults: what is wrong, by input."""

    reader: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, other: Results) -> None:
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.peak = max(self.peak, other.peak)
        self.faults |= other.faults

    def row(self) -> str:
        """A line of the table under `HEAD`."""
        counts = (
            self.accepted + self.refused + len(self.faults),
            self.accepted,
            self.refused,
            len(self.faults),
        )
        size = f"{self.slowest:.2f} s", f"{self.peak / 2**20:,.0f} MiB"
        return f"| {' | '.join((self.reader, *(f'{count:,}' for count in counts), *size))} |"


HEAD = "| reader | inputs | accepted | refused | faults | slowest | memory |\n|---|---:|---:|---:|---:|---:|---:|"


def campaign(reader: str, numbers: range, seed: int = 0, deadline: float = DEADLINE) -> Results:
    """Try these inputs of a reader in processes of its own: one that hangs or ends is named, and the rest goes on."""
    results, start = Results(reader), numbers.start
    while start < numbers.stop:
        tried, start = _one_process(reader, range(start, numbers.stop), seed, deadline)
        results.add(tried)
    return results


def _one_process(reader: str, numbers: range, seed: int, deadline: float) -> tuple[Results, int]:
    """Try inputs until one hangs or ends the process; and the number to go on with."""
    command = [sys.executable, __file__, "--work", reader, str(numbers.start), str(numbers.stop), str(seed)]
    with tempfile.TemporaryDirectory() as scratch:
        state, log = Path(scratch) / "state", Path(scratch) / "log"
        state.touch()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, scratch], stdout=output, stderr=subprocess.STDOUT, cwd=TESTS
            )
        last, since, hangs = "", time.monotonic(), False
        while process.poll() is None and not hangs:
            time.sleep(0.1)
            now = state.read_text()
            last, since = now, since if now == last else time.monotonic()
            hangs = bool(now) and time.monotonic() - since > deadline
        process.kill()
        process.wait()
        written, end = state.read_text().split(), log.read_text(errors="replace").strip()
        if not written:
            raise RuntimeError(f"{reader}: a good input fails\n{end[-3000:]}")
        number, accepted, refused, slowest, peak = map(int, written)
        faults = (json.loads(line) for line in (Path(scratch) / "faults").read_text().splitlines())
        tried = Results(
            reader, accepted, refused, slowest / 1e6, peak, {f"{reader} {at}": what for at, what in faults}
        )
        if process.returncode == 0:
            return tried, numbers.stop
        ended = f"ended the process ({process.returncode}): {end[-300:]}"
        tried.faults[f"{reader} {number}"] = f"took more than {deadline:.0f} s" if hangs else ended
        return tried, number + 1


def work(name: str, numbers: range, seed: int, scratch: Path) -> None:
    """Try inputs in this process. The file `state` holds the number at work and what came of those before it, so that
    they count whatever becomes of this one; the file `faults` has a line for each fault."""
    from fuzz.readers import READERS, WRONG

    reader, folder, watch = (READERS | {WRONG.name: WRONG})[name], scratch / "input", _Watch(scratch)
    faults = (scratch / "faults").open("a", buffering=1)
    for files in reader.good:  # imports and caches are no part of an input's time and memory
        put(folder, files)
        reader.read(folder)
    watch.begin()
    state, base = os.open(scratch / "state", os.O_WRONLY), _status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY, resource.RLIM_INFINITY))
    counts, slowest, peak = {"accepted": 0, "refused": 0}, 0.0, 0
    for number in numbers:
        if number % 20 == 0:
            peak = max(0, _status("VmHWM") - base)
        written = (number, *counts.values(), int(slowest * 1e6), peak)
        os.pwrite(state, " ".join(f"{value:>15}" for value in written).encode(), 0)
        put(folder, reader.input(seed, number))
        watch.seen.clear()
        start = time.perf_counter()
        verdict, fault = _try(reader, folder)
        slowest = max(slowest, time.perf_counter() - start)
        if fault := f"did {watch.seen[0]}" if watch.seen else fault:
            print(json.dumps((number, fault)), file=faults)
        else:
            counts[verdict] += 1
    written = (numbers.stop, *counts.values(), int(slowest * 1e6), max(0, _status("VmHWM") - base))
    os.pwrite(state, " ".join(f"{value:>15}" for value in written).encode(), 0)


def _try(reader: Any, folder: Path) -> tuple[str, str]:
    """What became of an input, and what is wrong with that; "" if nothing."""
    from normprobe.errors import NormprobeError

    try:
        reader.read(folder)
    except NormprobeError as error:
        cause: BaseException | None = error
        while cause is not None:  # a reader that turns any error into a refusal turns this one, too
            if isinstance(cause, MemoryError) or "allocate memory" in str(cause):
                return "refused", f"asked for more than {MEMORY >> 20} MiB: {cause!r}"[:300]
            cause = cause.__cause__
        lines = str(error).splitlines()
        return "refused", "" if len(lines) == 1 else f"refused in {len(lines)} lines: {str(error)[:200]!r}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        place = next(
            (
                one
                for one in reversed(where)
                if "normprobe" in one.filename and "fuzz" not in Path(one.filename).parts[-2]
            ),
            where[-1],
        )
        return (
            "refused",
            f"{type(error).__name__}: {str(error)[:150]!r} in {Path(place.filename).name}:{place.lineno}",
        )
    return "accepted", ""


class _Watch:
    """What an input makes the process do outside its folder, from the interpreter's own audit events."""

    def __init__(self, scratch: Path) -> None:
        self._inside, self.seen = scratch / "input", list[str]()

    def begin(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS or (
            event == "subprocess.Popen" and "normprobe.models.template_process" not in map(str, arguments[1])
        ):
            self.seen.append(f"{event} {str(arguments)[:150]}")
        elif event in _CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        ):
            path = arguments[0]
            if isinstance(path, str | bytes | Path) and not self._is_inside(os.fsdecode(path)):
                self.seen.append(f"{event} {str(arguments)[:150]}")

    def _is_inside(self, path: str) -> bool:
        return Path(os.path.normpath(path)).is_relative_to(self._inside) or path == os.devnull


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Make the folder hold these files and no others."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _status(field_: str) -> int:
    """A size of this process, in bytes (proc(5))."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field_)
    )
    return int(line.split()[1]) * 1024


def campaigns(readers: Sequence[str], inputs: int, seed: int) -> Iterator[Results]:
    """As many inputs for each of the readers, together `inputs`."""
    for reader in readers:
        yield campaign(reader, range(-(-inputs // len(readers))), seed)


def main() -> int:
    """Run the campaigns and print the table; 1 if an input failed."""
    from fuzz.readers import READERS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--inputs",
        type=int,
        default=int(os.environ.get("NORMPROBE_FUZZ", 1000)),
        help="of all readers together",
    )
    parser.add_argument("--reader", choices=READERS, action="append", help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try one input in this process")
    options = parser.parse_args()
    readers = options.reader or [*READERS]
    if options.only is not None:
        reader = READERS[readers[0]]
        with tempfile.TemporaryDirectory() as scratch:
            files = reader.input(options.seed, options.only)
            print({name: content[:2000] for name, content in files.items()})
            put(Path(scratch) / "input", files)
            reader.read(Path(scratch) / "input")
        return 0
    total = Results("together")
    print(HEAD, flush=True)
    for results in campaigns(readers, options.inputs, options.seed):
        print(results.row(), flush=True)
        for at, fault in results.faults.items():
            print(f"  {at}: {fault}", flush=True)
        total.add(results)
    print(total.row())
    return 1 if total.faults else 0


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    if sys.argv[1:2] == ["--work"]:
        name, start, stop, seed, scratch = sys.argv[2:]
        work(name, range(int(start), int(stop)), int(seed), Path(scratch))
    else:
        sys.exit(main())
