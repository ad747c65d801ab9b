"""The report: results as one self-contained HTML page (no external resources), as Markdown, CSV and text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import wording
from harness.core.regression import Decision
from harness.core.run_results import Results

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Notebook", "fragment", "render", "render_bases", "render_comparison", "render_handout"]


def render(results: Results, *, now: str) -> str:
    """Return the HTML page of a run. `now` is the time that the page names as the time of writing."""
    return _render_run("page.html", results, now)


def fragment(results: Results, *, now: str) -> str:
    """Return the report of a run as a part of another page, such as a notebook, without changing that page's style."""
    return _render_run("fragment.html", results, now)


def render_comparison(decision: Decision, *, now: str) -> str:
    """Return the HTML page that compares two runs."""
    from harness.report.comparison_page import comparison_page

    return _fill("comparison_page.html", comparison_page(decision, now))


def render_bases(runs: Sequence[tuple[Path, Results]], *, now: str) -> str:
    """Return the HTML page of several runs of one suite on different base models. Each has its run directory."""
    from harness.report.bases_page import bases_page

    return _fill("bases_page.html", bases_page(runs, now))


def render_handout(results: Results, *, now: str) -> str:
    """Return one printed page about a run, for the participants of a class."""
    from harness.report.handout import handout

    return _fill("handout.html", handout(results, now))


@dataclass(frozen=True)
class Notebook:
    """A report that Jupyter shows as the result of a cell, or by IPython's `display`."""

    html: str = field(repr=False)
    name: str

    def _repr_html_(self) -> str:
        return self.html


def _render_run(template: str, results: Results, now: str) -> str:
    from harness.report.page import page

    return _fill(template, page(results, now))


def _fill(template: str, page: object) -> str:
    environment = _environment()
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    html = environment.get_template(template).render(page=page, style=style, script=script, script_hash=_digest(script))
    # A lone surrogate, in an attribute for example, would raise an error when the page is written as UTF-8.
    return html.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from harness.report import formatting, html_tables
    from harness.report.charts import drawing

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.globals.update(formatting=formatting, wording=wording, titled=drawing.titled)
    environment.filters.update(
        column_groups=html_tables.column_groups, with_code=formatting.with_code, unbroken=formatting.unbroken
    )
    return environment


def _visible(value: Any) -> Any:
    """Make the control characters of a text visible. Jinja calls this for every value that a template prints."""
    from markupsafe import Markup

    from harness.core.outside_text import visible

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: Environment, name: str) -> Any:
    """Return a file of the templates folder, to be inserted without escaping."""
    from markupsafe import Markup

    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _digest(script: str) -> str:
    """Return the hash by which the page's content security policy allows its script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
