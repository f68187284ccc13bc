"""The building blocks of the HTML report: one self-contained page, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest

from normprobe.report.table import SHAPES
from normprobe.style import VERDICT_COLOURS

CSS = """
:root { --ink: #1c1c1c; --soft: #595959; --line: #d8d8d8; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 2px solid var(--ink); }
p, li { max-width: 44rem; }
p { margin: .5rem 0; }
a { color: inherit; }
.soft, figcaption, caption { color: var(--soft); font-size: .88rem; text-align: left; }
caption { caption-side: top; padding-bottom: .4rem; }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; max-width: 38rem; height: auto; }
figcaption { max-width: 44rem; margin-top: .4rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1.2rem .4rem 0; }
thead th { border-bottom: 1.5px solid var(--ink); }
thead th { font-weight: 600; }
tbody th { font-weight: 400; }
.cards tbody th { min-width: 10rem; }
tbody { border-bottom: 1px solid var(--line); }
.note td { padding: 0 0 .8rem; }
.number { white-space: nowrap; }
.verdict { white-space: nowrap; font-weight: 700; }
.shape { display: inline-block; width: 1.25em; text-align: center; margin-right: .2em; font-weight: 400; }
.key { list-style: none; padding: 0; margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; max-width: 44rem; }
dd { margin: 0; }
.rule { border-left: 3px solid var(--line); padding-left: .8rem; margin-left: 0; }
.tokens { line-height: 1.2; margin: 1rem 0; }
.tokens span { display: inline-block; vertical-align: top; text-align: center; margin: 0 2px 6px 0;
  font: .75rem ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.tokens b { display: block; font-weight: 400; padding: 3px 4px; }
.tokens i { display: block; font-style: normal; height: 1.2em; }
@media (max-width: 44rem) {
  body { padding: 1.2rem 1rem 3rem; }
  table.cards, .cards tbody, .cards tr, .cards td, .cards th { display: block; }
  .cards thead { position: absolute; left: -99rem; }
  .cards caption { display: block; }
  .cards tbody { padding: .8rem 0; }
  .cards tbody th, .cards td { padding: .1rem 0; }
  .cards td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { font-size: .85rem; }
  h2, caption, thead { break-after: avoid; }
  figure, tbody, .rule { break-inside: avoid; }
  a { text-decoration: none; }
}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A complete HTML document."""
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        )
    )


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def heading(text: str, anchor: str) -> str:
    return f'<h2 id="{escape(anchor)}">{escape(text)}</h2>'


def badge(verdict: str) -> str:
    """A verdict by shape and word; the colour only repeats them."""
    shape = f'<span class="shape" style="color:{VERDICT_COLOURS[verdict]}" aria-hidden="true">{SHAPES[verdict]}</span>'
    return f'<span class="verdict">{shape}{escape(verdict)}</span>'


def image(png: bytes, alt: str, caption: str) -> str:
    """A PNG inside the page, with its caption."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    *,
    cards: bool = False,
    notes: Iterable[str] = (),
) -> str:
    """A table of HTML cells (already escaped); the first cell of a row names it.

    `cards` stacks the cells of a row on a phone; `notes` gives each row a line of text across its columns.
    """
    lines = ['<table class="cards">' if cards else '<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    lines.append(
        "<thead><tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in head) + "</tr></thead>"
    )
    for (first, *others), note in zip_longest(rows, notes):
        cells = "".join(
            f'<td data-label="{escape(name)}">{cell}</td>'
            for name, cell in zip(head[1:], others, strict=True)
        )
        lines.append(f'<tbody><tr><th scope="row">{first}</th>{cells}</tr>')
        if note:
            lines.append(f'<tr class="note"><td colspan="{len(head)}">{note}</td></tr>')
        lines.append("</tbody>")
    lines.append("</table>" if cards else "</table></div>")
    return "\n".join(lines)
