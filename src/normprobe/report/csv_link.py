"""The data behind a figure as a link: a CSV file inside the page, compressed where it is large."""

from __future__ import annotations

import base64
import gzip
import re

import pandas as pd
from pandas.api.types import is_numeric_dtype

from normprobe.report.table import count

NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?%?( \[[\d.,e+ -]*\])?", re.IGNORECASE)
"""Text that is a number, maybe with its interval."""
LARGEST = 100_000
"""Bytes of a CSV file that stands in a page as it is; a larger one is compressed (`.csv.gz`)."""


MOST_BYTES = 800_000
"""Of a compressed file in a page; what is larger stays in the run."""


def csv_link(table: pd.DataFrame, name: str) -> dict[str, str]:
    """`href` of a link to the table as CSV, numbers to six digits, and its `download`, the file's name; of a table that
    is too large for a page no `href`, and in words why as `download`.

    A browser saves it without a server and without a script. No text in it is a formula to a spreadsheet.
    """
    safe = table.apply(lambda column: column if is_numeric_dtype(column) else column.map(as_text))
    content, kind, ending = safe.to_csv(index=False, float_format="%.6g").encode(), "text/csv", "csv"
    if len(content) > LARGEST:
        # Without the time of writing: the same table gives the same page.
        content, kind, ending = gzip.compress(content, mtime=0), "application/gzip", "csv.gz"
    if len(content) > MOST_BYTES:
        return {"download": f"{name}, too large for this page ({count(len(table))} rows): the run has it"}
    return {
        "href": f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}",
        "download": f"{name}.{ending}",
    }


def as_text(cell: object) -> object:
    """A cell with an apostrophe before text that a spreadsheet would run as a formula, as a model can write it.

    Numbers stay, also those that are text. templates/page.js does the same to what the page's script saves.
    """
    formula = (
        isinstance(cell, str)
        and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        and not NUMBER.fullmatch(cell)
    )
    return f"'{cell}" if formula else cell
