"""torch.compile takes a step of each policy as one graph: no shape depends on values, nothing waits for the device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KINDS = ("recursion", "probe", "suppression", "clamp", "steering", "combined")
PROGRAM = """
import json
import torch
import policy_steps as steps

CPU = torch.device("cpu")


def run(policy, passes, whole):
    step = steps.Step(policy, CPU)
    take = torch.compile(step.__call__, fullgraph=True, backend="eager") if whole else step
    changes = [change for layers in passes for change in take(layers)]
    values = [value for change in changes for value in vars(change).values()]
    return [value for value in (*values, *step.summary().values()) if value is not None]


verdicts = {}
for name, policy in steps.POLICIES.items():
    passes = steps.passes(torch.float32, CPU, 12)
    torch.compiler.reset()
    try:
        one, other = run(policy, passes, False), run(policy, passes, True)
        same = len(one) == len(other) and all(
            torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(one, other)
        )
        verdicts[name] = "same" if same else "not the same"
    except Exception as error:
        verdicts[name] = repr(error)[:2000]
print(json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """Of all policies, from a process without the type checks of the tests, which would break every graph."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent / "src")))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("threshold", ["fixed", "adaptive"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_and_the_same_bits(verdicts: dict[str, str], kind: str, threshold: str) -> None:
    assert verdicts[f"{kind} {threshold}"] == "same"
