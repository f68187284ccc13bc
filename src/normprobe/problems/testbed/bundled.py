"""Where the bundled checkpoints lie: tiny-thinker, its early checkpoint, and its untrained twin."""

import json
from pathlib import Path

from normprobe.errors import NormprobeError

NAMES = ("tiny-thinker", "tiny-thinker:early", "tiny-thinker:untrained")
WEIGHTS = Path(__file__).parent / "weights"


def path(name: str) -> Path:
    """Directory of a bundled checkpoint in Transformers' format, tokenizer and chat template inside.

    The untrained twin shares the trained model's directory: its weights are drawn from the recipe's seed
    (`initial_seed`).
    Errors: NormprobeError for a name that is not bundled.
    """
    if name not in NAMES:
        raise NormprobeError(f"expected a bundled model ({', '.join(NAMES)}), got {name!r}; correct the name")
    checkpoint = "early" if name.endswith(":early") else "final"
    directory = WEIGHTS / checkpoint
    if not (directory / "model.safetensors").exists():
        raise NormprobeError(f"expected the bundled weights in {directory}, got none; reinstall normprobe")
    return directory


def initial_seed() -> int:
    """The seed of tiny-thinker's exact random initialisation (`normprobe.models.initialise`)."""
    return int(json.loads((WEIGHTS / "recipe.json").read_text())["seed"])
