"""The switches of the paper's reference code."""

import json

import pytest

from normprobe.engines.vllm.frontend.variables import find_configuration
from normprobe.errors import NormprobeError
from normprobe.policies.spec import build

TAU = '{"21": 1300, "22": 1400}'


@pytest.mark.parametrize(
    ("switch", "meant"),
    {
        "loop": "alrr",
        "rr": "alrr",
        "suppress": "suppress",
        "ttts": "erss",
        "erss": "erss",
        "rerank": "probe",
    }.items(),
)
def test_the_switches_of_the_reference_code(switch: str, meant: str) -> None:
    environment = {"VLLM_PATCH": switch, "PATCHED_LAYERS": "21,22", "PATCHED_TAU_JSON": TAU}
    with pytest.warns(FutureWarning, match="NORMPROBE"):
        found = find_configuration({}, environment)
    assert found is not None
    assert found.policy is not None
    policy = build(json.loads(found.policy), None)
    assert policy == build({"policy": meant, "tau": json.loads(TAU)}, None)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"VLLM_PATCH": "unknown"}, "VLLM_PATCH as one of"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "1", "PATCHED_TAU_JSON": TAU}, "got both"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "perhaps"}, "ADAPTIVE as 1 or 0"),
        ({"VLLM_PATCH": "loop", "PATCHED_LAYERS": "21;22"}, "PATCHED_LAYERS"),
        ({"VLLM_PATCH": "loop", "PATCHED_TAU_JSON": "[]"}, "PATCHED_TAU_JSON"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "1"}, "layer profile"),
        ({"VLLM_PATCH": "loop", "NORMPROBE": '{"policy": "probe"}'}, "one policy"),
    ],
)
def test_switches_that_cannot_be_meant_are_refused(more: dict[str, str], message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        find_configuration({}, more)
