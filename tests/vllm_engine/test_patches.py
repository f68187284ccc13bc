"""The functions of vLLM that normprobe uses are those that were tested, and anything else is refused or named."""

import functools
import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

import vllm
from vllm.engine.arg_utils import EngineArgs

from normprobe.engines.vllm import patches
from normprobe.engines.vllm.patches import check
from normprobe.engines.vllm.plugin import register
from normprobe.engines.vllm.symbols import READ, SYMBOLS, TESTED, Use
from normprobe.errors import NormprobeError
from normprobe.problems import bundled

RUNNER = next(symbol for symbol in SYMBOLS if symbol.path.endswith("_update_states"))


def test_the_installed_vllm_is_the_tested_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check()


def test_what_is_listed_as_wrapped_is_wrapped() -> None:
    register()
    patches.apply(Use.SERVER)
    for symbol in SYMBOLS:
        found: Any = functools.reduce(getattr, symbol.names, importlib.import_module(symbol.module))
        wrapped = symbol.use in (Use.ENTRY, Use.EVERY_PROCESS, Use.SERVER)
        assert hasattr(found, "normprobe_wrapped") is wrapped, symbol.path


def test_a_missing_function_is_refused_by_name() -> None:
    gone = replace(RUNNER, signature=RUNNER.signature.replace("_update_states", "_update_state"))
    with pytest.raises(
        NormprobeError, match=r"GPUModelRunner\._update_state in .*got none; install vllm>=0\.32,<0\.34"
    ):
        check([gone])


def test_other_parameters_are_refused_by_name() -> None:
    other = replace(RUNNER, signature=RUNNER.signature.replace("scheduler_output", "output"))
    with pytest.raises(
        NormprobeError, match=r"_update_states\(self, output\).*got .*\(self, scheduler_output\); install"
    ):
        check([other])


def test_an_attribute_that_a_class_lacks_is_refused_by_name() -> None:
    batch = next(one for one in SYMBOLS if one.path.endswith("gpu.input_batch:InputBatch"))
    other = replace(batch, signature=batch.signature.replace("num_reqs", "num_reqs, n_requests"))
    with pytest.raises(
        NormprobeError, match=r"expected n_requests of vllm\.v1.*InputBatch .*runner_v2\), got none"
    ):
        check([other])


def test_other_source_is_named_in_one_warning() -> None:
    with pytest.warns(UserWarning, match="GPUModelRunner._update_states") as found:
        check([replace(RUNNER, digest="0" * 12), *SYMBOLS[:3]])
    assert len(found) == 1


def test_an_unknown_version_serves_plain_requests_and_refuses_policies(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    monkeypatch.setattr(vllm, "__version__", "0.34.0")
    given: dict[str, Any] = {"enforce_eager": True, "dtype": "float32", "max_model_len": 128}
    model = str(bundled.find("tiny-thinker").folder)
    assert EngineArgs(model, **given).create_engine_config().additional_config == {}
    policies = EngineArgs(model, **given, additional_config={"normprobe": str(profile)})
    with pytest.raises(
        NormprobeError, match=r"expected vLLM 0\.32 or 0\.33, got 0\.34\.0; install vllm>=0\.32,<0\.34"
    ):
        policies.create_engine_config()


def test_a_version_that_was_only_read_is_compared_with_its_own_sources_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    same = [symbol for symbol in SYMBOLS if not symbol.read]
    with pytest.warns(UserWarning, match=r"knows vLLM 0\.33 by its sources and was run on 0\.32") as found:
        check(same)
    assert len(found) == 1
    with pytest.warns(UserWarning, match="tested with other sources of .*EngineArgs.create_engine_config"):
        check()
    assert all(TESTED in symbol.versions for symbol in SYMBOLS)
    assert [
        symbol for symbol in SYMBOLS if READ not in symbol.versions and symbol.use is not Use.SERVER
    ] == []
