"""Draw every figure of the paper's counterparts from one run's tables: `python figures/make_all.py --run runs/x`."""

import importlib.util
import time
from pathlib import Path
from types import ModuleType

from normprobe.report.figure import command
from normprobe.report.findings import Findings, NothingToDraw


def make_all(run: Path, out: Path) -> None:
    """Every figure in order, a line of progress each; what the run lacks costs its figure, and the line says so."""
    Findings(run)  # a run without evidence is refused here, before anything is drawn
    for program in programs():
        begun = time.perf_counter()
        try:
            program.main(run, out)
        except NothingToDraw as reason:
            print(f"{program.__name__}: not drawn, {reason}", flush=True)
        else:
            print(f"{program.__name__}: {time.perf_counter() - begun:.1f} s", flush=True)


def programs() -> list[ModuleType]:
    """The figures' programs beside this file, in the order of their numbers."""
    return [_load(path) for path in sorted(Path(__file__).parent.glob("fig_*.py"))]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


if __name__ == "__main__":
    command(make_all, __doc__)
