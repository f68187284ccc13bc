"""Pages out of templates: no script, nothing is fetched, and no text can become markup (jinja2 escapes it)."""

from __future__ import annotations

import base64
from typing import Any

from normprobe.report.figure import Drawing
from normprobe.report.table import SHAPES, count, number, value
from normprobe.style import VERDICT_COLOURS


def render(template: str, **shown: Any) -> str:
    """The page of a template of templates/, with these names in it. A name that it lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("normprobe.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals |= {"shapes": SHAPES, "colours": VERDICT_COLOURS}
    environment.filters |= {"count": count, "png": _png, "short": number, "value": value}
    return environment.get_template(template).render(**shown)


def _png(drawing: Drawing) -> str:
    return base64.b64encode(drawing.png()).decode("ascii")
