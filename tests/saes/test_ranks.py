"""Several processes that share the layers of one training, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

import pytest
from saes_fixture import write_tables

from normprobe.config import SaeSettings
from normprobe.console import run_main
from normprobe.errors import NormprobeError
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.ranks import Rank
from normprobe.saes.activations import paired_responses
from normprobe.saes.stages import resolve_settings
from normprobe.tracing.stream import Piece, stream_states
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


def test_more_processes_than_layers_are_refused(make_tiny_qwen3):
    opened = assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)
    with pytest.raises(
        NormprobeError, match=r"expected no more processes than layers \(2\), got 3 of torchrun"
    ):
        resolve_settings(SaeSettings(layers="0-1"), opened, Rank(2, 3))


def test_batches_are_shared_out_so_that_each_token_is_read_once(make_tiny_qwen3):
    opened = assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)
    responses = paired_responses(write_tables(opened, 60)[1])
    found = [set(), set()]
    for number in range(2):

        def visit(piece: Piece, tokens=found[number]) -> None:
            tokens |= set(zip(piece.response_index.tolist(), piece.position.tolist(), strict=True))

        stream_states(opened, responses, ["sae"], visit, 10**7, Rank(number, 2))
    assert found[0].isdisjoint(found[1])
    assert len(found[0]) + len(found[1]) == responses["token_ids"].map(len).sum()
    assert min(map(len, found)) > 0.3 * max(map(len, found))


def test_layers_are_shared_out_without_a_rest():
    layers = [0, 3, 4, 7, 9]
    shares = [Rank(number, 2).own(layers) for number in range(2)]
    assert shares == [[0, 4, 9], [3, 7]]
    assert Rank().own(layers) == layers


def test_other_variables_of_that_name_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(NormprobeError, match="expected numbers in RANK, WORLD_SIZE, LOCAL_RANK"):
        Rank.of_environment()
