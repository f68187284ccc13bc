"""Everything that is worth a GPU, most valuable first, within a number of seconds: `bash benchmarks/gpu.sh`.

Each part is a process with its own time limit; its results are appended as they come, so that a run that is cut off
leaves what it has: gpu.jsonl and gpu.md (results), gpu.log (what the parts printed). On a CPU, `--tiny` runs the same
lines at a tiny size.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORTEST = 10
"""Seconds; a part is not begun with less."""
_WIDE = "--saes 3 --d 4096 --width 32768 --k 64 --rows 4096 --steps 10 --rounds 5"
_NARROW = "--saes 2 --d 32 --width 64 --k 4 --rows 64 --steps 10 --rounds 2"
TESTS = "-m pytest -q -p no:cacheprovider tests/gpu"


@dataclass(frozen=True)
class Part:
    """A name, a Python program with its arguments, seconds at most, and what the environment has besides."""

    name: str
    command: str
    limit: int
    environment: dict[str, str] = field(default_factory=dict)


def parts(results: str) -> list[Part]:
    """The parts on a GPU, most valuable first."""
    to = f"--device cuda --out {results}"

    def policies(model: str, mode: str, batches: str, limit: int, layers: str = "") -> Part:
        size = f"--batch {batches}{layers} --rounds 8 --new-tokens {16 if mode == 'eager' else 64}"
        command = f"benchmarks/policies.py --model {model} --dtype bfloat16 --mode {mode} {size} {to}"
        return Part(f"policies {model}{layers} {mode} {batches}", command, limit)

    return [
        Part("tests", TESTS, 150),
        Part("coherence", f"benchmarks/coherence.py --atoms 65536 --width 4096 {to}", 60),
        Part("training", f"benchmarks/sae_training.py {_WIDE} {to}", 90),
        policies("qwen3-8b", "graphs", "8", 150, " --layers 8"),
        policies("qwen3-8b", "eager", "8 1 32", 120, " --layers 8"),
        policies("qwen3-1.7b", "eager", "8 1 32", 180),
        policies("qwen3-1.7b", "graphs", "8", 300),
        policies("qwen3-8b", "eager", "8 1 32", 180),
    ]


def tiny_parts(results: str) -> list[Part]:
    """The same lines at a tiny size on the CPU, where the kernels run under Triton's interpreter."""
    to = f"--device cpu --out {results}"
    size = "--model qwen3-toy --dtype bfloat16 --batch 2 --rounds 2 --new-tokens 8"
    one_thread = {"OMP_NUM_THREADS": "1"}  # such small tensors make threads wait for each other
    interpreter = {"NORMPROBE_TEST_DEVICE": "cpu", "TRITON_INTERPRET": "1"}
    return [
        Part("tests", f"{TESTS} -k 'edges or learn or coherence or fixed'", 300, one_thread | interpreter),
        Part("coherence", f"benchmarks/coherence.py --atoms 2048 --width 64 {to}", 300, one_thread),
        Part("training", f"benchmarks/sae_training.py {_NARROW} {to}", 300, one_thread),
        *(
            Part(f"policies {mode}", f"benchmarks/policies.py {size} --mode {mode} {to}", 300, one_thread)
            for mode in ("eager", "graphs")
        ),
    ]


def run(part: Part, log: Path, seconds: float) -> str:
    """Run a part for so many seconds at most: "done", "failed (its exit code)" or "cut off"."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | part.environment
    with log.open("a", encoding="utf-8") as file:
        file.write(f"=== {part.name}\n")
        file.flush()
        # A group of its own, so that the workers of a compiler end with it.
        child = subprocess.Popen(
            [sys.executable, *shlex.split(part.command)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            return "cut off"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return "done" if code == 0 else f"failed ({code})"


def last_line(log: Path) -> str:
    """What the part printed last: of the tests, how many passed."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200]


def main() -> int:
    """Run the parts; 0 if all that were asked for are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=540, help="for everything together")
    parser.add_argument("--tiny", action="store_true", help="the same at a tiny size, on the CPU")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="parts that have it in their name"
    )
    parser.add_argument(
        "--out", type=Path, help="a folder; by default $OUT or benchmarks/results/gpu/DATE-TIME"
    )
    arguments = parser.parse_args()
    begun, now = time.monotonic(), datetime.now(UTC)
    out = arguments.out or Path(os.environ.get("OUT") or ROOT / f"benchmarks/results/gpu/{now:%Y%m%d-%H%M%S}")
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    statuses = []
    results = shlex.quote(str(out / "gpu.jsonl"))
    for part in tiny_parts(results) if arguments.tiny else parts(results):
        if not any(word in part.name for word in arguments.only):
            continue
        started = time.monotonic()
        left = arguments.seconds - (started - begun)
        if left < SHORTEST:
            status, printed = "no time left", ""
        else:
            status = run(part, out / "gpu.log", min(part.limit, left))
            printed = last_line(out / "gpu.log") if part.name == "tests" else ""
        statuses.append(status)
        seconds, date = round(time.monotonic() - started, 1), now.isoformat(timespec="seconds")
        record = {"part": part.name, "status": status, "seconds": seconds, "date": date, "printed": printed}
        with (out / "gpu.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        line = f"- {part.name}: {status} in {seconds:.0f} s {printed}".rstrip()
        with (out / "gpu.md").open("a", encoding="utf-8") as file:
            file.write(line + "\n\n")
        print(line, flush=True)
    return int(any(status != "done" for status in statuses))


if __name__ == "__main__":
    sys.exit(main())
