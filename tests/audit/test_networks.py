"""The dictionaries that an audit trains on a network, with the trainer of the run."""

import pandas as pd
import pytest
from saes_fixture import write_tables

from normprobe.audit.networks import Passage, trained_dictionaries
from normprobe.config import SaeSettings
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer


@pytest.mark.parametrize("trainer", ["normprobe", "sae_lens"])
def test_dictionaries_are_trained_as_a_run_trains_them(make_tiny_qwen3, trainer):
    opened = assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)
    problems, responses = write_tables(opened)[:2]
    settings = SaeSettings(width=40, k=4, n_samples=640, batch_size=64, trainer=trainer)
    passage = Passage(problems, responses, pd.DataFrame())
    one, again = (trained_dictionaries(opened, passage, [1, 3], settings, "audit", 0) for _ in range(2))
    other = trained_dictionaries(opened, passage, [1, 3], settings, "audit", 1)
    assert list(one) == [1, 3]
    for layer, dictionary in one.items():
        assert dictionary.width == 40
        assert dictionary.sae.cfg.metadata.layer == layer
        assert dictionary.atoms.equal(again[layer].atoms)
        assert not dictionary.atoms.equal(other[layer].atoms)
