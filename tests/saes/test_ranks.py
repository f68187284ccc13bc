"""Several processes that share the layers of one training, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.ranks import Rank
from normprobe.verify import main, train_saes

SIZES = "--n-sae 16 --n-select 8 --n-measure 8 --max-new-tokens 40 --width 32 --k 4 --n-samples 1000 ".split()
OURS = ["--layers", "2,5,11", "--memory-gb", "0.0004"]  # several chunks


def test_two_processes_train_what_one_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, two = tmp_path / "one", tmp_path / "two"
    train_saes([*SIZES, *OURS, "--out", str(one)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "normprobe", "train-saes", *SIZES, *OURS, "--out", str(two)]
    done = subprocess.run([*torchrun, *program], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dictionaries:") == 1

    def weights(run: Path) -> dict[str, bytes]:
        saes = run / "saes"
        return {str(path.relative_to(saes)): path.read_bytes() for path in saes.rglob("*.safetensors")}

    assert (
        len(weights(one)) == 12
    )  # three layers of the model, its twin, the early checkpoint and the random one
    assert weights(two) == weights(one)
    # Started once more, it sees that everything is there.
    again = subprocess.run([*torchrun, *program], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("command, words", [(train_saes, ["--sae-trainer", "sae_lens"]), (main, OURS)])
def test_what_several_processes_cannot_share_is_refused(tmp_path, monkeypatch, command, words, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_main(command, [*SIZES, *words, "--out", str(tmp_path / "run")]) == 2
    assert "expected one process, got 2 of torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_layers_are_shared_out_without_a_rest():
    layers = [0, 3, 4, 7, 9]
    shares = [Rank(number, 2).own(layers) for number in range(2)]
    assert shares == [[0, 4, 9], [3, 7]]
    assert Rank().own(layers) == layers


def test_other_variables_of_that_name_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(NormprobeError, match="expected numbers in RANK, WORLD_SIZE, LOCAL_RANK"):
        Rank.of_environment()
