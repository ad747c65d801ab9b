"""`python -P -m harness.suites.promptfoo.template_process`: renders templates in a child process with limits."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.core.limited_process import serve
from harness.suites.promptfoo.template_filters import FILTERS, member, text
from harness.suites.promptfoo.template_grammar import NotCertainError, checked, global_names


class _Environment(ImmutableSandboxedEnvironment):
    """Looks up names in values as JavaScript does. No attribute of a Python object can be reached."""

    def __init__(self) -> None:
        super().__init__(undefined=jinja2.ChainableUndefined, keep_trailing_newline=True, finalize=text)
        self.globals, self.filters = {}, dict(FILTERS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return member(obj, attribute, self.undefined())

    def getitem(self, obj: Any, argument: Any) -> Any:
        return member(obj, argument, self.undefined())


def render(_shared: Any, item: Any) -> str:
    """Render a template; `item` has its `text` and its `variables`."""
    try:
        template, names = _compiled(item["text"])
    except jinja2.TemplateError:
        raise NotCertainError("a syntax that is not Jinja2's") from None
    if missing := sorted(names - item["variables"].keys()):
        raise NotCertainError(f"the name {missing[0]}, which is no variable")
    return template.render(item["variables"])


@lru_cache(maxsize=64)
def _compiled(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    environment = _Environment()
    code = environment.compile(checked(environment, source))
    return jinja2.Template.from_code(environment, code, {}), global_names(environment, source)


if __name__ == "__main__":
    serve(render, sys.argv[1])
