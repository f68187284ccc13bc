"""The data behind a figure as a link: a CSV file inside the page, compressed where it is large."""

from __future__ import annotations

import base64
import gzip

import pandas as pd

LARGEST = 100_000
"""Bytes of a CSV file that stands in a page as it is; a larger one is compressed (`.csv.gz`)."""


def csv_link(table: pd.DataFrame, name: str) -> dict[str, str]:
    """`href` of a link to the table as CSV, numbers to six digits, and its `download`, the file's name.

    A browser saves it without a server and without a script.
    """
    content, kind, ending = table.to_csv(index=False, float_format="%.6g").encode(), "text/csv", "csv"
    if len(content) > LARGEST:
        # Without the time of writing: the same table gives the same page.
        content, kind, ending = gzip.compress(content, mtime=0), "application/gzip", "csv.gz"
    return {
        "href": f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}",
        "download": f"{name}.{ending}",
    }
