"""States on disk: a training out of them is the same to the bit, runs no model, and takes none of another's."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from saes_fixture import write_tables

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes.activations import chunks, draw_tokens, paired_responses
from normprobe.saes.stages import fill_saes
from normprobe.saes.state_cache import StateCache
from normprobe.saes.training import generator_for

N_CHUNKS = 3
SETTINGS = SaeSettings(width=40, k=4, n_samples=1280, batch_size=64, layers="1,3", trainer="normprobe")


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    return assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)


@pytest.fixture
def responses(opened) -> pd.DataFrame:
    return write_tables(opened)[1]


@pytest.fixture
def settings(responses, tmp_path) -> SaeSettings:
    """Three chunks of all tokens, and a cache."""
    responses = paired_responses(responses)
    n_tokens = responses["token_ids"].map(len).sum() - len(responses)
    chunk_bytes = -(-n_tokens // N_CHUNKS) * 2 * 32 * 4
    return replace(SETTINGS, memory_gb=float(chunk_bytes / 2**30), cache=str(tmp_path / "cache"))


def train(opened: OpenModel, responses: pd.DataFrame, folder: Path, settings: SaeSettings) -> int:
    """Train into `folder`, and count the forward passes of it; those that the dictionaries are judged by do not count,
    which alone are made where all are there."""
    folder.mkdir()
    passes = []
    hook = opened.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    counts = []
    for _ in range(2):
        fill_saes(folder, {"model": opened}, responses, settings=settings, seed=0, progress=False)
        counts.append(len(passes))
    hook.remove()
    training_and_judging, twice_judging = counts
    return 2 * training_and_judging - twice_judging


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("trainer", ["normprobe", "sae_lens"])
def test_a_training_out_of_a_cache_is_the_same_and_runs_no_model(
    opened, responses, settings, trainer, tmp_path
):
    settings = replace(settings, trainer=trainer)
    without, filling, second = (tmp_path / name for name in ("without", "filling", "second"))
    every_epoch = train(opened, responses, without, replace(settings, cache=None))
    once = train(opened, responses, filling, settings)
    assert 0 < once <= every_epoch
    if trainer == "normprobe":
        assert once < every_epoch  # later epochs read the cache, too
    assert train(opened, responses, second, settings) == 0
    assert weights(without) == weights(filling) == weights(second)
    assert train(opened, responses, tmp_path / "wider", replace(settings, width=48, k=3)) == 0
    shards = sorted(str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").rglob("*.*"))
    n_chunks = N_CHUNKS if trainer == "normprobe" else 1
    assert shards == [
        f"model/layer_{layer:02d}/chunk_{number:04d}.safetensors"
        for layer in (1, 3)
        for number in range(n_chunks)
    ]


def test_nothing_is_kept_unasked_and_what_is_half_written_is_not_taken(opened, responses, settings, tmp_path):
    train(opened, responses, tmp_path / "without", replace(settings, cache=None))
    assert not (tmp_path / "cache").exists()
    assert {path.name for path in (tmp_path / "without").rglob("*.safetensors")} == {
        "sae_weights.safetensors"
    }
    train(opened, responses, tmp_path / "filling", settings)
    lost = tmp_path / "cache" / "model" / "layer_03" / "chunk_0001.safetensors"
    lost.rename(lost.with_name("chunk_0001.safetensors.tmp"))
    assert train(opened, responses, tmp_path / "second", settings) > 0  # reads that chunk again
    assert weights(tmp_path / "second") == weights(tmp_path / "without")


def test_states_of_others_are_refused(opened, responses, settings, tmp_path, make_tiny_qwen3):
    train(opened, responses, tmp_path / "filling", settings)

    def refused(message: str, opened=opened, responses=responses, settings=settings) -> None:
        with pytest.raises(NormprobeError, match=message) as error:
            train(opened, responses, tmp_path / "refused", settings)
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "refused").glob("model/*"))
        (tmp_path / "refused" / "model").rmdir() if (tmp_path / "refused" / "model").exists() else None
        (tmp_path / "refused").rmdir()

    other = assemble(make_tiny_qwen3(seed=1), build_tokenizer(), "other", check=False)
    refused("expected states of model .*, got .*; name another directory", opened=other)
    refused("expected states of tokens", settings=replace(settings, n_samples=640))
    refused("expected states of tokens", responses=responses.iloc[::-1].reset_index(drop=True))
    folder = tmp_path / "cache" / "model"
    first, third = (
        folder / "layer_01" / "chunk_0000.safetensors",
        folder / "layer_03" / "chunk_0000.safetensors",
    )
    content = first.read_bytes()
    first.write_bytes(third.read_bytes())
    refused("expected states of layer 1 in .*chunk_0000.safetensors, got 3")
    first.write_bytes(content[:-40])
    refused("expected readable states in .*chunk_0000.safetensors, got SafetensorError .*; delete the file")


def test_a_disk_without_room_is_refused_before_anything_is_read(opened, responses, tmp_path):
    responses = paired_responses(responses)
    rows = draw_tokens(responses, 100, generator_for(0))
    huge = replace(opened.identity, d_model=10**15)
    with pytest.raises(NormprobeError, match=r"GB of free space for the states in .*cache, got"):
        StateCache(tmp_path / "cache", huge).check(chunks(responses, rows, 50, generator_for(1)), [0])
