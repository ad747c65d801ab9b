"""Results to one self-contained HTML page that asks nothing of anyone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.core import wording
from harness.core.regression import Decision
from harness.core.results import Results

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Notebook", "fragment", "render", "render_comparison"]


def render(results: Results, *, now: str) -> str:
    """The whole page; `now` is the time it says it was written."""
    return _rendered("page.html", results, now)


def fragment(results: Results, *, now: str) -> str:
    """The same for the inside of another page, such as a notebook's: its style and script touch nothing else there."""
    return _rendered("fragment.html", results, now)


def render_comparison(decision: Decision, *, now: str) -> str:
    """The page of two runs."""
    from harness.report.comparison import comparison_page

    return _filled("comparison.html", comparison_page(decision, now))


@dataclass(frozen=True)
class Notebook:
    """A report that shows itself where it is the last line of a notebook's cell, or is given to IPython's `display`."""

    html: str = field(repr=False)
    name: str

    def _repr_html_(self) -> str:
        return self.html


def _rendered(template: str, results: Results, now: str) -> str:
    from harness.report.page import page

    return _filled(template, page(results, now))


def _filled(template: str, page: object) -> str:
    environment = _environment()
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    html = environment.get_template(template).render(page=page, style=style, script=script, script_hash=_digest(script))
    # What a lone surrogate could still slip into (an attribute, say) must not make the page unwritable.
    return html.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from harness.report import charts, tables, words

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(words=words, wording=wording, titled=charts.titled)
    environment.filters["groupby_runs"] = tables.groups
    return environment


def _shown(value: Any) -> Any:
    """Every text that enters the page passes here, so that no template can forget it."""
    from markupsafe import Markup

    from harness.report.words import visible

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: Environment, name: str) -> Any:
    """A file of ours that goes into the page as it is."""
    from markupsafe import Markup

    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _digest(script: str) -> str:
    """What the page's content security policy calls its one script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
