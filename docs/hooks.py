"""What mkdocs adds to the pages: the API, the layout of a run, and a refusal of anything from a network."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from normprobe.runs.layout import columns_markdown

PACKAGE = Path(__file__).parents[1] / "src/normprobe"
# What loads something from another host when the page is opened.
REMOTE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `api/NAME.md` for every module and package of normprobe, and `run_layout.md` from `runs/layout.py`."""
    layout = f"# The layout of a run\n\n{columns_markdown()}\n"
    files.append(File.generated(config, "run_layout.md", content=layout))
    for path in sorted(PACKAGE.iterdir()):
        if path.stem.startswith("_") or not (path.suffix == ".py" or (path / "__init__.py").is_file()):
            continue
        page = f"# {path.stem}\n\n::: normprobe.{path.stem}\n"
        files.append(File.generated(config, f"api/{path.stem}.md", content=page))
    return files


def on_post_page(output: str, page: object, config: MkDocsConfig) -> str:
    """Refuse a page that would load anything from a network. Raises PluginError with what it found."""
    if found := REMOTE.search(output):
        raise PluginError(f"expected a page that loads nothing from a network, got {found[0]}")
    return output
