"""A small random model, what it is to read, and a random dictionary for each of two layers."""

import pandas as pd
import pytest
from saes_fixture import write_tables

from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes.dictionary import Dictionary, random_dictionary
from normprobe.saes.training import generator_for

LAYERS, WIDTH, K = (1, 3), 24, 4


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    return assemble(make_tiny_qwen3(), build_tokenizer(), "random", check=False)


@pytest.fixture
def responses(opened) -> pd.DataFrame:
    return write_tables(opened, 36)[1]


@pytest.fixture
def dictionaries(opened) -> dict[int, Dictionary]:
    d = opened.identity.d_model
    return {
        layer: Dictionary.of(random_dictionary(d, WIDTH, K, {}, generator_for(layer))) for layer in LAYERS
    }
