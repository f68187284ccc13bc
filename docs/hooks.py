"""What mkdocs adds to the pages: what the code says of itself, the API, and a refusal of anything from a network."""

import re
from pathlib import Path

import pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from normprobe.claims.registry import BY_NAME
from normprobe.runs.layout import columns_markdown

PACKAGE = Path(__file__).parents[1] / "src/normprobe"
# What loads something from another host when the page is opened.
REMOTE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
MADE = {
    "*(Table of the claims: made by `make docs`.)*": pages.claims_table,
    "*(Table of the formats: made by `make docs`.)*": pages.formats_table,
    "*(Table of the plans: made by `make docs`.)*": pages.plans_table,
}
"""Marks in pages, and what stands in their place."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the notebooks, the claims and the parts of the package to the navigation."""
    claims = [{claim.name: f"claims/{claim.name}.md"} for claim in BY_NAME.values()]
    sections = {
        "Notebooks": [f"examples/{name}.md" for name in pages.NOTEBOOKS],
        "Claims": ["claims/index.md", *claims],
        "API": [f"api/{name}.md" for name in parts()],
    }
    assert config.nav is not None  # mkdocs.yml has one
    for entry in config.nav:
        entry |= {title: made for title, made in sections.items() if title in entry}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `api/NAME.md` for every part of normprobe, a page per notebook, `run_layout.md`, and a page for a claim that
    has none by hand."""
    layout = f"# The layout of a run\n\n{columns_markdown()}\n"
    made = {"run_layout.md": layout}
    made |= {f"api/{name}.md": f"# {name}\n\n::: normprobe.{name}\n" for name in parts()}
    made |= {f"examples/{name}.md": pages.notebook_page(name) for name in pages.NOTEBOOKS}
    made |= {f"claims/{name}.md": "" for name in BY_NAME if not files.get_file_from_path(f"claims/{name}.md")}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what the code says of itself into the pages of claims, and in the place of marks."""
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    if folder == "claims" and name in BY_NAME:
        return pages.claim_page(BY_NAME[name], markdown)
    for mark, make in MADE.items():
        markdown = markdown.replace(mark, make()) if mark in markdown else markdown
    return pages.with_sources(markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load anything from a network. Raises PluginError with what it found."""
    if found := REMOTE.search(output):
        raise PluginError(f"expected a page that loads nothing from a network, got {found[0]}")
    return output


def parts() -> list[str]:
    """The modules and packages of normprobe, by name."""
    return [
        path.stem
        for path in sorted(PACKAGE.iterdir())
        if not path.stem.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    ]
