"""`python -P -m harness.suites.promptfoo.template_process`: renders templates in a child process with limits."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.core.limited_process import serve
from harness.suites.promptfoo.template_filters import FILTERS, member, text
from harness.suites.promptfoo.template_grammar import GLOBALS, Names, NotCertainError, checked


class _Environment(ImmutableSandboxedEnvironment):
    """Looks up names in values as JavaScript does. No attribute of a Python object can be reached."""

    def __init__(self) -> None:
        super().__init__(undefined=jinja2.ChainableUndefined, keep_trailing_newline=True, finalize=text)
        self.globals, self.filters = {}, dict(FILTERS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return member(obj, attribute, self.undefined())

    def getitem(self, obj: Any, argument: Any) -> Any:
        return member(obj, argument, self.undefined())


def render(_shared: Any, item: Any) -> dict[str, str]:
    """Render a template; `item` has its `text` and its `variables`.

    Returns its `text`, or the name of a variable that is `missing`.
    """
    try:
        template, names = _compiled(item["text"])
    except jinja2.TemplateError:
        raise NotCertainError("a syntax that is not Jinja2's") from None
    except RecursionError:
        raise NotCertainError("parts that are nested too deeply") from None
    missing = sorted(names.used - item["variables"].keys())
    if own := [name for name in missing if name in GLOBALS]:
        raise NotCertainError(GLOBALS[own[0]])
    if needed := [name for name in missing if name not in names.optional]:
        return {"missing": needed[0], "text": ""}
    return {"missing": "", "text": template.render(item["variables"])}


@lru_cache(maxsize=64)
def _compiled(source: str) -> tuple[jinja2.Template, Names]:
    environment = _Environment()
    tree, names = checked(environment, source)
    return jinja2.Template.from_code(environment, environment.compile(tree), {}), names


if __name__ == "__main__":
    serve(render, sys.argv[1])
