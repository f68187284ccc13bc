"""Finished runs with planted numbers, made once for all tests that read runs; programs of the repository as modules."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from run_fixture import write_finished_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def program() -> Callable[[str], ModuleType]:
    """`program("figures/make_all.py")`: a program of the repository as a module."""

    def load(name: str) -> ModuleType:
        path = ROOT / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """A finished run with every table; read it, do not write to it."""
    return write_finished_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory) -> Path:
    """A finished run of other numbers, of a model without roles, experiments and an evaluation of the methods."""
    path = tmp_path_factory.mktemp("runs") / "bare"
    return write_finished_run(path, seed=1, roles=False, suppression=False, methods=False)
