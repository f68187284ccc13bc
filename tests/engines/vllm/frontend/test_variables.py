"""How an engine is started with normprobe."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from profile_fixture import profile as some_profile

from normprobe.engines.vllm.configuration import Configuration
from normprobe.engines.vllm.frontend.variables import find_configuration
from normprobe.errors import NormprobeError


def test_configuration_from_the_variable_or_from_additional_config() -> None:
    given = {"policy": {"policy": "alrr", "tau": {"3": 2.0}}}
    found = find_configuration({}, {"NORMPROBE": json.dumps(given)})
    assert found == find_configuration({"normprobe": given}, {"NORMPROBE": "/nowhere"})
    assert found is not None
    assert found.policy == '{"policy":"alrr","tau":{"3":2.0}}'
    assert Configuration.of({"normprobe": asdict(found)}) == found
    assert find_configuration({"other": 1}, {"PATH": "/bin"}) is None


def test_policies_in_graphs_beside_the_default() -> None:
    probe = {"policy": "probe", "tau": {"3": 2.0}}
    found = find_configuration({"normprobe": {"policy": probe, "in_graphs": [probe | {"max_tokens": 4}]}}, {})
    assert found is not None
    assert found.in_graphs == ('{"max_tokens":4,"policy":"probe","tau":{"3":2.0}}',)
    assert Configuration.of(json.loads(json.dumps({"normprobe": asdict(found)}))) == found


def test_the_profile_travels_as_it_was_when_the_engine_started(tmp_path: Path) -> None:
    path = tmp_path / "layer_profile.json"
    profile = some_profile()
    profile.save(path)
    found = find_configuration({}, {"NORMPROBE": str(path)})
    path.unlink()
    assert found is not None
    assert Configuration.of(json.loads(json.dumps({"normprobe": asdict(found)}))) == found
    assert found.layer_profile() == profile


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/nowhere/layer_profile.json", "expected a layer profile at"),
        ('{"profil": "x"}', "the path of a layer profile or"),
        ('{"policy": "nonsense"}', "a policy among"),
        ('{"policy": "alrr"}', "a layer profile"),
        ("{broken", "expected JSON"),
        ('{"in_graphs": "probe"}', "expected in_graphs as a list of policies, got 'probe'"),
        ('{"in_graphs": ["nonsense"]}', "a policy among"),
        ('{"in_graphs": ["alrr"]}', "a layer profile"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(value: str, message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        find_configuration({}, {"NORMPROBE": value})
