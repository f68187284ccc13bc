"""The memory of a whole training, measured in a process of its own, against what the plan states."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from normprobe.training_plan import TrainingPlan

WIDTH = 100_000
PROGRAM = Path(__file__).with_name("peak_of_training.py")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_training_takes_the_memory_that_its_plan_states(tiny_qwen3_dir, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, str(PROGRAM), str(tiny_qwen3_dir), str(out), str(WIDTH)]
    path = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    grown = int(done.stdout)
    layers, d, states = 4, 32, 10**8  # `memory_gb` of the program
    plan = TrainingPlan(layers, d, WIDTH, 4, 256, 64, 0, states, 4)
    trained = layers * plan.layer_bytes
    assert trained > 4e8
    assert 0.7 * trained < grown < trained + states, grown
