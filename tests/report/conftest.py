"""report.html of the whole run in a real browser without a network.

Chromium (`make browser`) and Playwright are needed; without them the tests that look at a page are skipped.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from normprobe.report.html import write_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here; `make browser` installs it on Debian")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which a container's root may not have: the pages are ours.
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser) -> Iterator[Any]:
    """`visit(file, **options of a context)`: the page of a file in a context of its own, and what it did: `requests`
    beyond its own file, and `messages` (errors, the console's, dialogs)."""
    contexts = []

    def opened(path: Path, fragment: str = "", **options: Any) -> tuple[Any, dict[str, list[str]]]:
        context, seen = browser.new_context(**options), {"requests": [], "messages": []}
        contexts.append(context)
        page = context.new_page()

        def route(route: Any) -> None:
            if route.request.url.split("#")[0] == path.as_uri():
                route.continue_()
            else:
                seen["requests"].append(route.request.url)
                route.abort()

        page.route("**/*", route)
        page.on("console", lambda message: seen["messages"].append(message.text))
        page.on("pageerror", lambda error: seen["messages"].append(str(error)))
        page.on("dialog", lambda dialog: (seen["messages"].append(dialog.message), dialog.dismiss()))
        page.goto(f"{path.as_uri()}{fragment}")
        return page, seen

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def report(whole_run, tmp_path_factory) -> Path:
    return write_report(Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("browser") / "toy")))
