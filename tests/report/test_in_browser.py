"""report.html in a real browser without a network: it works, hostile text stays text, nothing is fetched."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hostile_run import HOSTILE, poison

from normprobe.report.feature_pages import write_pages
from normprobe.report.html import write_report
from normprobe.runs.tables import Tables

ACTIVE = """[...document.querySelectorAll("*")].flatMap((one) => [...one.attributes])
    .filter(({ name }) => /^on|^(href|src|action)$/.test(name))
    .filter(({ name, value }) => /^on/.test(name) || /javascript:/i.test(value))
    .map(({ name, value }) => `${name}=${value}`)"""
"""The attributes of a page that could run something."""


def open_all(page: Any) -> None:
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")


def test_the_page_works_alone_and_says_nothing_to_the_console(report, visit):
    page, seen = visit(report)
    assert not any(seen.values())
    assert page.locator("#maps [role=option]").count() > 0
    assert page.locator("#curve-chart svg polyline").count() > 0
    assert page.locator(".forest tbody tr").count() == page.locator("details.claim").count()
    assert not page.locator("#excerpt").is_visible()
    assert page.title() == "normprobe: toy"


def test_without_a_script_all_that_was_found_can_be_read(report, visit):
    page, seen = visit(report, java_script_enabled=False)
    assert not any(seen.values())
    assert page.locator("#excerpt .tokens").is_visible()
    assert page.locator(".forest").is_visible()
    assert not page.locator("#explorer").is_visible()
    claim = page.locator("details.claim").first
    claim.locator("summary").first.click()
    assert claim.locator("img").is_visible()
    assert claim.locator(".rule").is_visible()


def test_the_page_forbids_itself_every_request_and_every_other_script(report, visit):
    page, seen = visit(report)
    blocked = page.evaluate("""async () => {
        const blocked = [];
        addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
        await fetch("https://example.org/x").catch(() => {});
        new Image().src = "https://example.org/x.png";
        const script = document.createElement("script");
        script.textContent = "window.owned = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", '<b onclick="window.owned=1" style="color:red">b</b>');
        document.body.lastChild.click();
        await new Promise((done) => setTimeout(done, 100));
        return blocked;
    }""")
    directives = {"connect-src", "img-src", "script-src-elem", "script-src-attr", "style-src-attr"}
    assert set(blocked) == directives
    assert page.evaluate("window.owned") is None
    assert seen["requests"] == []


def test_hostile_text_stays_text(whole_run, tmp_path, visit):
    run = Path(shutil.copytree(whole_run, tmp_path / "hostile"))
    poison(run)
    report, features = write_report(run), write_pages(Tables(run))
    page, seen = visit(report, viewport={"width": 390, "height": 844})
    open_all(page)
    for i in range(page.locator("#problem option").count()):
        page.select_option("#problem", index=i)
        page.locator("#maps [role=option]").nth(i).focus()
    assert page.locator("#maps [role=option]").get_by_text(HOSTILE[0], exact=True).count() > 0
    assert page.locator("#token code").count() == 1
    assert page.locator("#features mark").inner_text() == HOSTILE[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for shown, did in ((page, seen), visit(features)):
        assert shown.evaluate("window.owned") is None
        assert not any(did.values())
        assert shown.locator("iframe, link, object, embed, base").count() == 0
        assert shown.locator("script").count() == (2 if shown is page else 0)
        assert shown.locator("style").count() == 1
        assert shown.evaluate(ACTIVE) == []


def test_a_token_shows_its_own_values_and_the_layer_changes_the_map(report, visit):
    page, _ = visit(report, "#tokens")
    tables = Tables(report.parent)
    problem = page.evaluate("data.tokens.problems[0].id")
    tokens = tables.tokens
    rows = tokens.index[(tokens["response_id"] == f"{problem}/think/0") & (tokens["segment"] != "prompt")]
    cells = page.locator("#maps section").first.locator("[role=option]")
    assert cells.all_inner_texts() == list(tokens.loc[rows, "token"])

    def norm_shown() -> float:
        return float(page.locator("#token dd").first.inner_text().split()[0])

    def shades() -> list[str]:
        return cells.evaluate_all("(cells) => cells.map((cell) => cell.className)")

    norm = tables.signals("model")["norm"]
    cells.nth(3).hover()
    assert norm_shown() == pytest.approx(norm[6, rows[3]], rel=6e-3)
    assert str(tokens.loc[rows[3], "role"]) in page.locator("#token").inner_text()
    before = shades()
    page.locator("#layer").fill("1")
    assert shades() != before
    assert norm_shown() == pytest.approx(norm[1, rows[3]], rel=6e-3)
    order = np.argsort(norm[1, rows], kind="stable")
    steps = np.array([int(shade[1:]) for shade in shades()])
    assert (np.diff(steps[order]) >= 0).all()
    page.select_option("#signal", label="surprisal")
    assert page.locator("#layer").is_disabled()
    page.select_option("#mode", "no_think")
    assert page.locator("#maps section h3").all_inner_texts()[0].startswith("no_think")
    assert page.locator("#maps section").count() == 1


def test_tokens_layers_and_folds_are_reached_by_the_keyboard(report, visit):
    page, _ = visit(report, "#tokens")
    page.locator("#layer").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#layer-shown").inner_text().startswith("5 ")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert (
        page.locator("#maps [aria-selected=true]").evaluate(
            "(cell) => [...cell.parentNode.children].indexOf(cell)"
        )
        == 1
    )
    page.keyboard.press("End")
    assert page.locator("#maps [role=option]:focus").inner_text() == "<|im_end|>"
    chart = page.locator("#curve-chart svg.chart")
    chart.focus()
    page.keyboard.press("Home")
    assert page.locator("#curve-chart caption").inner_text().endswith("layer 0")
    page.keyboard.press("ArrowRight")
    assert page.locator("#curve-chart caption").inner_text().endswith("layer 1")
    summary = page.locator("details.claim summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.claim").first.get_attribute("open") is not None


def test_a_curve_reads_out_the_claims_series(report, visit):
    page, _ = visit(report, "#layers")
    page.select_option("#curve", label="log ratio, whole responses")
    page.locator("#curve-chart svg.chart").press("Home")
    series = pd.read_parquet(report.parent / "evidence/thinking_norm_is_higher.parquet")
    at = series[(series["quantity"] == "log ratio, whole responses") & (series["layer"] == 0)]
    expected = dict(zip(at["name"], at["estimate"], strict=True))
    rows = page.locator("#curve-chart tbody tr")
    shown = {row.locator("th").inner_text().strip(): row.locator("td").inner_text() for row in rows.all()}
    assert shown.keys() == expected.keys()
    for name, text in shown.items():
        assert float(text.split()[0]) == pytest.approx(expected[name], rel=6e-3)


def test_a_table_is_sorted_filtered_and_saved(report, visit):
    page, _ = visit(report, "#accuracy")
    table = page.locator("table[data-name=accuracy]")

    def column(place: int) -> list[str]:
        return table.evaluate(
            "(table, place) => [...table.tBodies].filter((body) => !body.hidden)"
            ".map((body) => body.rows[0].cells[place].textContent.trim())", place
        )  # fmt: skip

    head = table.locator("thead th").nth(1)
    for direction, turn in (("ascending", 1), ("descending", -1)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        shares = [float(text.split("%")[0]) for text in column(1)]
        assert shares == sorted(shares, reverse=turn == -1)
        assert len(set(shares)) > 1
    section = page.locator("#accuracy")
    section.locator("input[type=search]").fill("difficulty")
    assert all(label.startswith("difficulty") for label in column(0))
    assert (
        section.locator("[role=status]").inner_text()
        == f"{len(column(0))} of {table.locator('tbody').count()} rows"
    )
    with page.expect_download() as saved:
        section.get_by_role("button", name="Save as CSV").click()
    assert saved.value.suggested_filename == "accuracy.csv"
    head_row, *rows = csv.reader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8")))
    assert head_row == ["Problems", "think", "no_think", "filler", "n"]
    assert [row[0] for row in rows] == column(0)
    assert [row[1] for row in rows] == column(1)


def test_a_link_opens_its_fold_and_what_is_printed_is_open(report, visit):
    page, _ = visit(report)
    link = page.locator(".forest tbody a").nth(1)
    target = page.locator(link.get_attribute("href"))
    assert target.get_attribute("open") is None
    link.click()
    assert target.get_attribute("open") is not None
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.claim:not([open]), details.section:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.claim[open]").count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_no_fault_of_accessibility_is_found_and_nothing_overflows(report, visit, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = visit(report, color_scheme=scheme, viewport={"width": width, "height": 844})
    open_all(page)
    page.locator("#maps [role=option]").first.hover()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe.run(page).response["violations"] == []
