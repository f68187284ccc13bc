"""The parts of the docs that are made from code: every claim, format and study is there, in its own words."""

import re
import sys
from pathlib import Path

import pytest

from normprobe.claims.registry import BY_NAME, CLAIMS
from normprobe.labels import in_words
from normprobe.report.figures import FIGURES
from normprobe.study_file import read_study
from normprobe.thinking_formats import FORMATS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(DOCS))
    try:
        import pages
    finally:
        sys.path.remove(str(DOCS))
    return pages


def cells(table: str) -> list[list[str]]:
    """The rows of a table in Markdown, without its head; bars in code end no cell."""
    rows = [re.findall(r"((?:`[^`]*`|[^|`])*)\|", line.removeprefix("|")) for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in rows]


def test_every_claim_has_a_part_by_hand_and_no_part_is_stale(pages):
    by_hand = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "claims").glob("*.md")}
    assert by_hand.keys() - {"index"} == BY_NAME.keys()
    for name in BY_NAME:
        _, _, part = by_hand[name].partition(pages.BY_HAND)
        assert len(re.findall(r"[.:;] ?$|[.:] ", part, re.MULTILINE)) >= 3, name


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_page_holds_what_the_claim_says(pages, claim):
    page = pages.claim_page(claim, f"# {claim.name}\n\nnever shown\n\n{pages.BY_HAND}\n\nBy hand.\n")
    flat = page.replace("\n- ", " ").replace("\\_", "_")
    for text in (
        claim.title,
        claim.statement,
        claim.rule,
        claim.why_smallest,
        claim.caption,
        claim.figure,
        claim.unit,
    ):
        assert text in flat
    assert re.findall(r"^\| \*\*(.+?)\*\* \|", page, re.MULTILINE) == list(map(in_words, claim.rules_out))
    assert "By hand." in page
    assert "never shown" not in page
    assert re.findall(r"^# .*", page, re.MULTILINE) == [f"# {claim.title}"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_page_shows_what_the_gallery_has_of_the_claims_figures(pages, claim):
    page, gallery = pages.claim_page(claim, ""), (DOCS / "figures.md").read_text(encoding="utf-8")
    stems = [claim.figure, *(extra.stem for extra in claim.extra_figures)]
    there = re.findall(rf"\(images/figures/(.*?)/({'|'.join(stems)})\.png\)", gallery)
    shown = re.findall(r"!\[(.*?)\]\(\.\./images/figures/(.*?)/(\w+)\.png\)", page)
    assert [(name, stem) for _, name, stem in shown] == there
    assert all(alt == f"{claim.title} {stem} of {name}" for alt, name, stem in shown)
    assert ("Neither study" in page) == (not there)


def test_a_claim_without_a_part_by_hand_has_a_page_too(pages):
    page = pages.claim_page(CLAIMS[0], "")
    assert pages.BY_HAND not in page
    assert CLAIMS[0].rule.split(". ")[0] in page


def test_the_index_has_a_line_per_claim_in_the_papers_order(pages):
    rows = cells(pages.claims_table())
    assert [re.findall(r"`(\w+)`", row[0]) for row in rows] == [[claim.name] for claim in CLAIMS]


def test_every_format_has_a_line_of_four_cells(pages):
    rows = cells(pages.formats_table())
    assert [row[0] for row in rows] == [f"`{name}`" for name in (*(one.name for one in FORMATS), "elicited")]
    assert {len(row) for row in rows} == {4}


def test_every_study_has_a_line_and_whoever_trains_on_a_gpu_its_plan(pages):
    rows = {row[0].strip("`"): row for row in cells(pages.plans_table())}
    assert rows.keys() == {path.name for path in pages.STUDIES.glob("*.yaml")}
    for name, row in rows.items():
        study = read_study(pages.STUDIES / name)
        planned = study.model.device == "cuda" and not study.saes.given
        assert planned == bool(re.fullmatch(r"[\d.,]+ (s|h)", row[4])), row


def test_every_notebook_has_a_page_with_its_text_and_its_code(pages):
    assert set(pages.NOTEBOOKS) == {path.stem for path in pages.EXAMPLES.glob("*.ipynb")}
    for name in pages.NOTEBOOKS:
        page = pages.notebook_page(name)
        assert page.count("```python\nimport ") == 1
        assert (
            len(re.findall(r"^# ", re.sub(r"```python.*?```", "", page, flags=re.DOTALL), re.MULTILINE)) == 1
        )
        assert f"`examples/{name}.ipynb`" in page
        for linked in re.findall(r"\]\((\w+)\.md\)", page):
            assert linked in pages.NOTEBOOKS


def test_the_gallery_has_every_figure_in_small_images():
    page = (DOCS / "figures.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == sorted(FIGURES)
    assert re.findall(r"^Drawn by `normprobe figures RUN --only (.+)`\.$", page, re.MULTILINE) == sorted(
        FIGURES
    )
    images = DOCS / "images" / "figures"
    shown = set(re.findall(r"\]\(images/figures/(.+?)\)", page))
    sizes = {str(path.relative_to(images)): path.stat().st_size for path in images.rglob("*.png")}
    assert sizes.keys() == shown
    assert max(sizes.values()) <= 80_000
    assert sum(sizes.values()) <= 1_600_000


def test_what_can_be_added_stands_there_in_the_tests_own_text(pages):
    """Of every section a test that adds one of it, as it is now; nothing of the marks is left."""
    page = (DOCS / "add.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    shown = {section.partition("\n")[0]: pages.with_sources(section) for section in sections}
    added = (
        "A claim",
        "A policy",
        "A thinking format",
        "A problem source",
        "A signal per token",
        "An engine",
    )
    assert {title for title, text in shown.items() if re.search(r"^def test_", text, re.MULTILINE)} == set(
        added
    )
    for title in added:
        (file,) = re.findall(r"^From `(tests/\S+)`:$", shown[title], re.MULTILINE)
        assert f"| `{file}` |" in page
        blocks = re.findall(r"^```python\n(.*?)^```$", shown[title], re.MULTILINE | re.DOTALL)
        text = (DOCS.parent / file).read_text(encoding="utf-8")
        assert len(blocks) >= 2
        assert all(block in text for block in blocks)
        assert "put here by" not in shown[title]


def test_a_name_that_a_test_lacks_is_no_page(pages):
    with pytest.raises(StopIteration):
        pages.sources("tests/test_house.py", ["absent"])


def test_questions_that_others_were_asked_say_where():
    page = (DOCS / "faq.md").read_text(encoding="utf-8")
    questions = re.split(r"^### ", page, flags=re.MULTILINE)[1:]
    where = [
        re.findall(r"\[#(\d+)\]\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/(\d+)\)", q)
        for q in questions
    ]
    assert sum(map(bool, where)) >= len(questions) / 2
    assert all(bool(found) == ("*Asked in " in text) for found, text in zip(where, questions, strict=True))
    assert all(shown == linked for found in where for shown, linked in found)


def test_every_person_has_a_guide_that_the_start_and_the_navigation_lead_to():
    """Short, with commands, and onwards to other pages."""
    start = (DOCS / "index.md").read_text(encoding="utf-8")
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    guides = sorted(DOCS.glob("guide_*.md"))
    assert [guide.stem.removeprefix("guide_") for guide in guides] == ["engineer", "researcher", "reviewer"]
    for guide in guides:
        text = guide.read_text(encoding="utf-8")
        assert f"({guide.name})" in start
        assert f": {guide.name}" in navigation
        assert len(text.splitlines()) <= 75
        assert len(re.findall(r"^```bash$", text, re.MULTILINE)) >= 4
        assert len(re.findall(r"seconds|minutes|hours?", text, re.IGNORECASE)) >= 4
        assert "\nRead on: [" in text
