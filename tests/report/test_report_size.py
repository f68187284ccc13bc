"""The report of a run of the default sizes stays below 5 MB."""

import base64
import gzip
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from claims_fixture import LAYERS

from normprobe.config import Study
from normprobe.report import csv_link, token_explorer
from normprobe.report.html import write_report

LINK = re.compile(r'href="(data:[^,]+;base64,([^"]+))" download="([^"]+)"')
N_PROBLEMS = 20  # of the tests' run
DEFAULT_LAYERS = 12  # of tiny-thinker
ROWS = {"selection": 36 * 2048, "method_treatments": 17 * 2048, "combinations": 12 * 512}
"""Of the methods' tables in the default study of tiny-thinker, which has more treatments than the run of the tests."""


def grown(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The table with `n` rows: its own drawn again, fractions shaken so that they do not repeat."""
    rng = np.random.default_rng(0)
    table = table.sample(n, replace=True, random_state=0)
    return table.assign(
        **{name: table[name] * rng.normal(1, 0.1, n) for name in table.select_dtypes("float")}
    )


def test_the_report_of_a_default_run_stays_below_5_mb(whole_run, tmp_path):
    """As a small run's page, but with as much as the explorer may hold, and a default run's problems and layers."""
    page = write_report(Path(shutil.copytree(whole_run, tmp_path / "toy"))).read_text(encoding="utf-8")
    (embedded,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    explorer = json.loads(embedded)["tokens"]
    coded = [v for p in explorer["problems"] for r in p["responses"] for v in r["values"].values()]
    values = sum(map(len, coded))
    assert values <= token_explorer.MOST_BYTES
    full = len(json.dumps(explorer, separators=(",", ":"))) * token_explorer.MOST_BYTES / values
    links, more_layers = 0.0, DEFAULT_LAYERS / LAYERS
    for href, content, name in LINK.findall(page):
        read, stem = base64.b64decode(content), name.split(".")[0]
        table = pd.read_csv(io.BytesIO(gzip.decompress(read) if name.endswith(".gz") else read))
        if "problem_id" in table:
            n = int(len(table) * more_layers * Study().problems.n_measure / N_PROBLEMS)
            link = csv_link.csv_link(grown(table, ROWS.get(stem, n)), stem)
            links += len(link["href"]) if "href" in link else csv_link.MOST_BYTES * 4 / 3
        else:
            links += len(href) * more_layers
    others = len(page) - len(embedded) - sum(len(href) for href, *_ in LINK.findall(page))
    assert others + full + links < 5_000_000


def test_what_is_too_large_for_a_page_is_named_and_stays_in_the_run(monkeypatch):
    table = pd.DataFrame({"value": np.random.default_rng(0).normal(size=50_000)})
    assert csv_link.csv_link(table, "wide")["download"] == "wide.csv.gz"
    monkeypatch.setattr(csv_link, "MOST_BYTES", 100_000)
    link = csv_link.csv_link(table, "wide")
    assert "href" not in link
    assert link["download"].startswith("wide, too large for this page (50,000 rows)")
