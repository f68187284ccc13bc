"""Print the lowest versions of its libraries that pyproject.toml allows, as a constraints file for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["lm-eval"]]:
    found = re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
    if not found:
        raise SystemExit(f"expected NAME>=VERSION, got {requirement!r}; give it a lower bound")
    print("==".join(found.groups()))
