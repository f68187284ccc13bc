"""features.html and its summary, on planted tables: what they count and show, and that no text becomes markup."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from layout_fixture import put
from run_fixture import finish

from normprobe.report.__main__ import main as report
from normprobe.report.feature_pages import summary, summary_document, summary_text, write_pages
from normprobe.report.findings import NothingToDraw
from normprobe.report.html import write_report
from normprobe.runs.directory import Run
from normprobe.runs.tables import Tables

EVIL = "<script>alert(1)</script>"
PAGES = pd.DataFrame(
    [
        (2, 0, "reasoning", 9, 0.9, "token-driven", "context-dependent", 0.6),
        (2, 5, "reasoning", 8, 0.1, "weakly token-driven", "weakly token-driven", 0.2),
        (2, 9, "matched", 0, 0.3, "context-dependent", "context-dependent", None),
        (2, 8, "matched", 5, 0.5, "partially token-driven", "context-dependent", None),
        (6, 4, "reasoning", None, 0.5, "context-dependent", "context-dependent", 0.0),
        (6, 7, "reasoning", None, None, None, None, None),
    ],
    columns=["layer", "feature", "kind", "counterpart", "r2_tokens", "trigger_dependence", "control_dependence",
             "trigger_fraction"],
).astype({"counterpart": "Int64"})  # fmt: skip


@pytest.fixture
def run(whole_run, tmp_path) -> Path:
    path = Path(shutil.copytree(whole_run, tmp_path / "toy"))
    features = pd.DataFrame(
        [(layer, feature) for layer in (2, 6) for feature in range(12)], columns=["layer", "feature"]
    )
    put(path, "features", features.assign(reader="model", selected=features["feature"].isin([0, 3, 4, 5, 7])))
    measured = {
        "trigger_d": 1.0,
        "trigger_p": 1e-5,
        "control_d": 0.0,
        "control_p": 0.5,
        "control_fraction": 0.1,
    }
    put(path, "feature_pages", PAGES.assign(**measured, r2_shuffled=-0.01))
    at = {"layer": 2, "feature": 0}
    example = {"tokens": json.dumps(["a", EVIL, "b"]), "values": json.dumps([0.0, 3.0, 1.0]), "place": 1}
    put(path, "feature_examples", pd.DataFrame([at | example | {"activation": 3.0, "mode": "think"}]))
    tokens = [at | {"list": name, "token": EVIL, "value": 1.5} for name in ("trigger", "promoted")]
    put(path, "feature_tokens", pd.DataFrame(tokens).assign(n=pd.array([7, None], dtype="Int64")))
    put(path, "feature_neighbours", pd.DataFrame([at | {"neighbour": 5, "cosine": 0.5, "selected": True}]))
    bins = [
        ("think", 0.0, 0.0, 60),
        ("think", 1.0, 2**0.5, 30),
        ("think", 2.0, 2**1.5, 10),
        ("filler", 0.0, 0.0, 5),
    ]
    histogram = pd.DataFrame(bins, columns=["of", "low", "high", "n"])
    put(path, "feature_histograms", histogram.assign(**at))
    finish(Run(path))
    return path


def test_the_summary_counts_features_by_layer_with_their_controls(run):
    found = summary(Tables(run))
    assert [row[:6] for row in found["rows"]] == [
        ["2", "2 of 5", "2 of 2", "1 of 2", "1 of 2", "0 of 2"],
        ["6", "2 of 5", "0 of 1", "0 of 1", "–", "–"],
    ]
    assert [row[6:8] for row in found["rows"]] == [["0.500", "0.400"], ["0.500", "–"]]
    assert found["sentence"].startswith(
        "Of the 4 clearest of 10 reasoning features, 2 of 3 are token-triggered (1 with a large effect, d ≥ 0.8)"
    )
    text = summary_text(Tables(run))
    assert max(map(len, text.splitlines()[:3])) <= 110
    assert found["sentence"] in text
    document = json.loads(json.dumps(summary_document(Tables(run)), allow_nan=False))
    assert document["summary"] == found["sentence"]
    assert [(row["layer"], row["feature"]) for row in document["features"]] == list(
        PAGES[["layer", "feature"]].itertuples(index=False, name=None)
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.marked = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        self.links += [given["href"]] if given.get("href") else []

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["mark"] and not self.marked:
            self.marked = data


def test_every_feature_has_its_place_and_no_text_becomes_markup(run):
    page = write_pages(Tables(run))
    assert page == run / "features.html"
    text = page.read_text(encoding="utf-8")
    read = Tags()
    read.feed(text)
    assert "script" not in read.tags
    assert read.marked == EVIL
    assert [name for name in read.ids if name.startswith("f")] == [
        f"f{row.layer}-{row.feature}" for row in PAGES.itertuples()
    ]
    assert '<a href="#f2-0">0</a>.' in text
    assert "nan" not in text.lower()
    inner = [link.removeprefix("#") for link in read.links if link.startswith("#")]
    assert set(inner) <= set(read.ids)
    assert [link for link in read.links if not link.startswith("#")] == ["report.html"]
    assert "silent 60.0 %" in text
    assert text.count("<rect") == 2
    assert 'moves by <span class="number">60 %</span>' in text
    assert text.count("It is silent in the split measure.") == 5


def test_the_report_sums_up_and_leads_to_the_pages(run, whole_run, capsys):
    assert 'href="features.html"' in write_report(run).read_text(encoding="utf-8")
    report([str(run)])
    assert capsys.readouterr().out.split() == [str(run / "report.html"), str(run / "features.html")]


def test_a_run_without_pages_says_what_writes_them(whole_run):
    with pytest.raises(NothingToDraw, match=r"`normprobe features .*` writes them"):
        summary(Tables(whole_run))
