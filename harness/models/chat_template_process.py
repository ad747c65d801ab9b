"""`python -P -m harness.models.chat_template_process`: renders chat templates, in a child process with limits.

A template is rendered as transformers renders it: in Jinja's sandbox, with the same extensions and functions. The date
of today is a fixed one.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.core.limited_process import serve
from harness.core.model import TEMPLATE_DATE


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's tokens for TRL. Only its content is rendered here."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        content = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(content, lineno=line)


def render(shared: Any, item: Any) -> str:
    """Render one conversation. `shared` has the template and its special tokens, `item` the messages."""
    template = _compiled(shared["template"])
    # transformers always passes tools and documents. Templates test whether they are none, not whether they exist.
    given = {"messages": item["messages"], "tools": None, "documents": None, "add_generation_prompt": item["ask"]}
    return template.render(**given, **shared["special"])


@lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda _format: TEMPLATE_DATE
    return environment.from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


if __name__ == "__main__":
    serve(render, sys.argv[1])
