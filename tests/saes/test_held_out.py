"""Dictionaries are judged on tokens that they were not trained on; the reference reads one response at a time."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from saes_fixture import write_tables

from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes.activations import HELD_OUT, paired_responses
from normprobe.saes.dictionary import Dictionary, random_dictionary
from normprobe.saes.held_out import held_out_quality, quality
from normprobe.saes.stages import fill_saes, load_reader
from normprobe.saes.training import generator_for

SETTINGS = SaeSettings(width=64, k=4, n_samples=4000, batch_size=64, layers="1,3")


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    return assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)


def states_of(opened: OpenModel, responses: pd.DataFrame, split: str, layer: int) -> torch.Tensor:
    """The states of think and no_think but for position 0, response by response."""
    kept: list[torch.Tensor] = []
    handle = opened.blocks[layer].register_forward_hook(lambda _m, _i, output: kept.append(output[0, 1:]))
    with torch.no_grad():
        for ids in paired_responses(responses, split)["token_ids"]:
            opened.model(torch.tensor([ids]))
    handle.remove()
    return torch.cat(kept)


def test_what_stands_in_the_table_is_of_the_split_select(opened, tmp_path):
    responses = write_tables(opened, 36)[1]
    fill_saes(tmp_path, {"model": opened}, responses, settings=SETTINGS, seed=0, progress=False)
    table = pd.read_parquet(tmp_path / "training.parquet").set_index("layer")
    for layer, dictionary in load_reader(tmp_path, "model", opened).items():
        row = table.loc[layer]
        held_out, trained = (states_of(opened, responses, split, layer) for split in ("select", "sae"))
        assert (row["held_out_tokens"], row["training_tokens"]) == (len(held_out), len(trained))
        for name, value in quality(dictionary, held_out).items():
            assert row[f"{name}_held_out"] == pytest.approx(value, abs=1e-4)
        # A few hundred tokens, seen over and over: they look better than they are.
        assert row["r2_held_out"] < quality(dictionary, trained)["r2"] - 0.01


def test_memory_decides_how_many_tokens_and_layers_and_what_is_read_is_the_same(opened):
    held_out = paired_responses(write_tables(opened, 36)[1], HELD_OUT)
    dictionaries = {
        layer: Dictionary.of(random_dictionary(32, 64, 4, {}, generator_for(layer))) for layer in (0, 2)
    }

    def judged(n: int, state_memory: int) -> pd.DataFrame:
        options = {"n": n, "seed": 0, "state_memory": state_memory}
        return held_out_quality(opened, held_out, dictionaries, "model", **options)

    together, one_by_one = judged(100, 2 * 100 * 32 * 4), judged(100, 100 * 32 * 4)
    pd.testing.assert_frame_equal(together, one_by_one)
    assert together["layer"].tolist() == [0, 2]
    assert set(judged(100, 50 * 32 * 4)["held_out_tokens"]) == {50}


def test_nothing_to_judge_on_is_refused_before_anything_is_trained(opened, tmp_path):
    responses = write_tables(opened, 6)[1]
    without = responses[responses["split"] != HELD_OUT]
    with pytest.raises(
        NormprobeError, match=r"expected responses in split 'select' .* to judge them on, got none"
    ):
        fill_saes(tmp_path, {"model": opened}, without, settings=SETTINGS, seed=0, progress=False)
    assert not list(Path(tmp_path).iterdir())
