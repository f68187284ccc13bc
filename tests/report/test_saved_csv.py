"""What report.html in a real browser saves as CSV: the data behind its figures and tables, with nothing to be run."""

import base64
import csv
import gzip
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hostile_run import HOSTILE, poison

from normprobe.report import heatmap
from normprobe.report.findings import Findings
from normprobe.report.html import write_report
from normprobe.runs.tables import Tables

FORMULA = re.compile(r"[=+@\t\r-](?![\d.,]+(e[+-]?\d+)?%?( \[|$))")
"""How a cell begins that a spreadsheet runs; a negative number is none."""


def saved(page: Any, element: Any) -> str:
    """The text of the file that a click on the element saves."""
    with page.expect_download() as download:
        element.click()
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_the_data_behind_a_figure_are_one_click_away(report, visit):
    page, _ = visit(report, "#two_sided_bound")
    for claim in ("thinking_norm_is_higher", "two_sided_bound"):
        page.evaluate("(claim) => document.getElementById(claim).open = true", claim)
        link = page.locator(f"#{claim} figcaption a[download]")
        with page.expect_download() as saved:
            link.click()
        name = saved.value.suggested_filename
        content = Path(saved.value.path()).read_bytes()
        assert content == base64.b64decode(link.get_attribute("href").split("base64,")[1])
        table = pd.read_csv(io.BytesIO(gzip.decompress(content) if name.endswith(".gz") else content))
        series = pd.read_parquet(report.parent / f"evidence/{claim}.parquet")
        assert list(table.columns) == list(series.columns)
        numbers = series.select_dtypes("number").columns
        np.testing.assert_allclose(table[numbers].to_numpy(float), series[numbers].to_numpy(float), rtol=1e-5)


def test_the_forest_plot_has_its_numbers_behind_it(report, visit):
    page, _ = visit(report)
    table = pd.read_csv(io.StringIO(saved(page, page.locator("#verdicts a[download]"))))
    findings = list(Findings(report.parent))
    assert list(table["claim"]) == [finding.evidence.claim for finding in findings]
    assert list(table["verdict"]) == [finding.evidence.verdict for finding in findings]
    decisions = [finding.evidence.decision for finding in findings]
    for column, expected in {
        "margin": [decision.margin for decision in decisions],
        "low": [decision.interval[0] for decision in decisions],
        "smallest_effect": [decision.smallest_effect for decision in decisions],
    }.items():
        np.testing.assert_allclose(table[column], expected, rtol=1e-5)
    np.testing.assert_allclose(table["estimate"] - table["control"], table["margin"], rtol=1e-3, atol=1e-5)
    assert table["control"].notna().any()


def test_the_token_heat_map_saves_what_it_shows(report, visit):
    page, _ = visit(report, "#tokens")
    page.locator("#layer").fill("1")
    page.select_option("#mode", "think")
    table = pd.read_csv(io.StringIO(saved(page, page.locator("#tokens-csv"))), keep_default_na=False)
    tables = Tables(report.parent)
    tokens, (problem,) = tables.tokens, set(table["problem"])
    rows = tokens.index[(tokens["response_id"] == f"{problem}/think/0") & (tokens["segment"] != "prompt")]
    assert list(table["token"]) == list(tokens.loc[rows, "token"])
    assert list(table["place"]) == list(tokens.loc[rows, "position"])
    assert list(table["role"]) == list(tokens.loc[rows, "role"].fillna(""))
    assert set(table["layer"]) == {1}
    signals = tables.signals("model")
    np.testing.assert_allclose(table["norm"].astype(float), signals["norm"][1, rows], rtol=1e-3)
    np.testing.assert_allclose(
        table["surprisal"].astype(float), signals["surprisal"][rows], rtol=1e-2, atol=1e-3
    )


def test_the_heat_map_of_a_page_without_script_has_its_data(report, visit):
    page, _ = visit(report, java_script_enabled=False)
    table = pd.read_csv(io.StringIO(saved(page, page.locator("#excerpt a[download]"))))
    excerpt = heatmap.choose(Tables(report.parent))
    assert list(table["token"]) == excerpt.tokens
    np.testing.assert_allclose(table["norm"], excerpt.norm, rtol=1e-5)


def test_text_is_no_formula_to_a_spreadsheet_and_numbers_stay_numbers(whole_run, tmp_path, visit):
    run = Path(shutil.copytree(whole_run, tmp_path / "hostile"))
    poison(run)
    written, texts, done = write_report(run), list[str](), False
    while not done:
        page, _ = visit(written)  # anew, since Chromium lets a tab save ten files in quick succession
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        buttons = [page.locator("#tokens-csv"), *page.get_by_role("button", name="Save as CSV").all()]
        links = [link for link in page.locator("a[download$='.csv']").all() if link.is_visible()]
        next_ones = [*buttons, *links][len(texts) :][:8]
        texts += [saved(page, one) for one in next_ones]
        done = len(texts) == len(buttons) + len(links)
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text)) for cell in row]
    assert [cell for cell in cells if FORMULA.match(cell)] == []
    assert {f"'{text}" for text in HOSTILE[-4:]} <= set(cells)
    shown = page.locator("table[data-name] td").all_inner_texts()
    negative = {text.strip() for text in shown if re.fullmatch(r"-\d[\d.]*( \[.*\])?", text.strip())}
    assert negative
    assert negative <= set(cells)
