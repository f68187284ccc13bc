"""What an engine refuses to start with, before it loads a model; and that without a configuration nothing changes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

from vllm import envs
from vllm.engine.arg_utils import EngineArgs

from normprobe.engines.vllm.configuration import Configuration
from normprobe.engines.vllm.frontend.engine_setup import WORKER
from normprobe.engines.vllm.plugin import register
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.problems import bundled


@pytest.fixture(scope="module", autouse=True)
def plugged() -> None:
    register()


def configure(profile: Path | None, **more: Any) -> Any:
    given: dict[str, Any] = {"enforce_eager": True, "dtype": "float32", "max_model_len": 128}
    if profile is not None:
        given["additional_config"] = {"normprobe": str(profile)}
    given |= more
    return EngineArgs(str(bundled.find("tiny-thinker").folder), **given).create_engine_config()


def test_an_engine_with_policies_has_our_worker_and_knows_its_configuration(profile: Path) -> None:
    config = configure(profile)
    assert config.parallel_config.worker_cls == WORKER
    held = Configuration.of(config.additional_config)
    assert held is not None
    assert held.layer_profile() == LayerProfile.load(profile)


def test_without_a_configuration_nothing_changes() -> None:
    config = configure(None, enforce_eager=False)
    assert config.parallel_config.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker"
    assert config.additional_config == {}


def test_the_variable_counts_as_additional_config(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMPROBE", f'{{"profile": "{profile}", "policy": "alrr"}}')
    assert configure(None).additional_config["normprobe"]["policy"] == '{"policy":"alrr"}'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
            "drop spec",
        ),
        ({"worker_cls": "somebody.else.Worker"}, "drop worker_cls"),
        (
            {
                "additional_config": {
                    "normprobe": {"policy": {"policy": "probe", "tau": {"2": 1}, "max_tokens": 999}}
                }
            },
            "max_tokens of at most 128",
        ),
    ],
    ids=["speculative", "another worker", "a default policy beyond the limits"],
)
def test_what_policies_cannot_run_on_is_refused(profile: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        configure(profile, **more)


def test_a_front_end_that_validates_no_policy_is_refused(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs.disable_envs_cache()  # an engine of this process has begun to keep them
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(NormprobeError, match="unset VLLM_USE_RUST_FRONTEND"):
        configure(profile)


def test_another_plugin_may_have_wrapped_first(profile: Path) -> None:
    """In a process of its own: this one is plugged in already."""
    script = """
import functools, sys
from vllm.engine.arg_utils import EngineArgs
create = EngineArgs.create_engine_config
EngineArgs.create_engine_config = functools.wraps(create)(lambda self, *args: create(self, *args))
from normprobe.engines.vllm.frontend.engine_setup import WORKER
from normprobe.engines.vllm.plugin import register
register()
register()
config = EngineArgs(sys.argv[1], additional_config={"normprobe": sys.argv[2]}).create_engine_config()
assert config.parallel_config.worker_cls == WORKER
"""
    # No plugins of the environment: the order is the test's.
    environment = os.environ | {"VLLM_PLUGINS": ""}
    asked = [sys.executable, "-c", script, str(bundled.find("tiny-thinker").folder), str(profile)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_profile_of_another_model_is_refused(profile: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    other = LayerProfile.load(profile)
    path = tmp_path / "other.json"
    replace(other, model=other.model | {"d_model": 64}).save(path)
    with pytest.raises(NormprobeError, match="d_model"):
        configure(path)
