"""Shapes and types are checked in every test; no test reaches a network; fixtures of small real models."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"

from jaxtyping import install_import_hook

# Before any import of the package: jaxtyping shapes and all annotations are checked at every call.
install_import_hook("normprobe", "beartype.beartype")

import hypothesis
import pytest
import torch

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

torch.set_num_threads(1)
# The same examples in every run, and no failure because a core was busy.
hypothesis.settings.register_profile("normprobe", deadline=None, derandomize=True)
hypothesis.settings.load_profile("normprobe")

LONG = (
    "test_kill.py",
    "test_verify.py",
    "test_real_model.py",
    "test_compiled_interventions.py",
    "test_notebooks.py",
)
"""Minutes each: they begin first, so that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def make_tiny_qwen3() -> "Callable[..., Qwen3ForCausalLM]":
    """`make_tiny_qwen3(seed=0, n_layers=4)`: a random Qwen3ForCausalLM over the testbed's vocabulary."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from normprobe.problems.testbed.vocabulary import END, PAD, VOCABULARY

    def make(seed: int = 0, n_layers: int = 4) -> Qwen3ForCausalLM:
        config = Qwen3Config(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=VOCABULARY.index(END),
            pad_token_id=VOCABULARY.index(PAD),
        )
        # transformers initialises from the global generator: fork it, so that no other test sees the seed.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Qwen3ForCausalLM(config).eval()

    return make


@pytest.fixture
def tiny_qwen3(make_tiny_qwen3: "Callable[..., Qwen3ForCausalLM]") -> "Qwen3ForCausalLM":
    """A random Qwen3ForCausalLM: 4 layers, width 32, 4 heads of 8 (2 key-value), the testbed's tokens."""
    return make_tiny_qwen3()


@pytest.fixture
def tiny_qwen3_dir(tiny_qwen3: "Qwen3ForCausalLM", tmp_path: Path) -> Path:
    """A checkpoint directory of `tiny_qwen3` with the testbed's tokenizer and chat template."""
    from normprobe.problems.testbed.tokenizer import build_tokenizer

    folder = tmp_path / "tiny_qwen3"
    tiny_qwen3.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def program() -> Callable[[str], ModuleType]:
    """`program("figures/make_all.py")`: a program of the repository as a module."""

    def load(name: str) -> ModuleType:
        path = ROOT / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """A finished run with every table; read it, do not write to it."""
    from run_fixture import write_finished_run

    return write_finished_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory) -> Path:
    """A finished run of other numbers, of a model without roles, experiments and an evaluation of the methods."""
    from run_fixture import write_finished_run

    path = tmp_path_factory.mktemp("runs") / "bare"
    return write_finished_run(path, seed=1, roles=False, suppression=False, methods=False)
