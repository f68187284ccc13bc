"""Pages out of templates: nothing is fetched, only the package's own script runs, and no text can become markup.

jinja2 escapes every text. Besides, a page forbids itself (Content-Security-Policy) everything but its own style and
script, which it knows by their hashes, and images that it holds itself.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from normprobe.labels import in_words
from normprobe.report.csv_link import csv_link
from normprobe.report.figure import Drawing
from normprobe.report.heatmap import SHADES, colour_of, ink_on, printable
from normprobe.report.table import SHAPES, count, number, unit, value

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SCRIPTS = ("page.js", "tables.js", "charts.js", "curves.js", "tokens.js")
"""The script of a page with embedded data, in the order in which its parts stand."""


def render(template: str, **shown: Any) -> str:
    """The page of a template of templates/, with these names in it. A name that it lacks is an error."""
    environment = _environment()
    style, script = (
        _source(environment, *names) for names in (("style.css.jinja",), SCRIPTS if "data" in shown else ())
    )
    return environment.get_template(template).render(
        style=style, script=script, policy=_policy(style, script), **shown
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("normprobe.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shades = [(place / (SHADES - 1)) for place in range(SHADES)]
    environment.globals |= {
        "shapes": SHAPES,
        "shades": [(colour_of(shade), ink_on(shade)) for shade in shades],
    }
    environment.filters |= {
        "count": count, "csv": csv_link, "in_words": in_words, "png": _png, "printable": printable, "short": number,
        "unit": unit, "value": value,
    }  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _source(environment: Environment, *names: str) -> Markup:
    """The text of the package's own style or script, as it stands in the page."""
    from markupsafe import Markup

    return Markup("\n").join(Markup(environment.get_template(name).render()) for name in names)


def _policy(style: str, script: str) -> str:
    allowed = " ".join(
        f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}';"
        for kind, text in (("style", style), ("script", script))
        if text
    )
    return f"default-src 'none'; img-src data:; {allowed} base-uri 'none'; form-action 'none'"


def _png(drawing: Drawing) -> str:
    return base64.b64encode(drawing.small_png()).decode("ascii")
