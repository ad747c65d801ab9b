"""Render the templates of a suite as promptfoo's Nunjucks does, or refuse them.

`{{name}}` is replaced here. Any other template is rendered by a child process with limits, if `template_grammar` is
certain of the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from harness.core import javascript
from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused
from harness.core.yaml import shown
from harness.suites.notices import UnsupportedError

MAX_FILLED = 256 * 1024
"""Maximum number of characters of a text after its variables are replaced; longer texts could exhaust memory."""
MARK = re.compile(r"\{\{|\{%|\{#")
VARIABLE = re.compile(r"\{\{\s*([^\W\d]\w*)\s*\}\}")
LITERALS = frozenset({"true", "false", "none", "null"})
BROKEN = re.compile(r"\{%[^%]*$|\{\{[^}]*$|\{#[^#]*$", re.MULTILINE)
"""A tag that a line break interrupts. promptfoo then leaves the whole text as it is."""
CHILD = "harness.suites.promptfoo.template_process"
LIMITS = Limits(seconds=2.0, output=MAX_FILLED)
MAX_LIMITS_REACHED = 2
"""Number of templates that may reach a limit before no more are rendered, so that a suite cannot wait for each."""


class MissingVariableError(ValueError):
    """A template names a variable that the case does not have."""

    def __init__(self, name: str, variables: Iterable[str] = ()) -> None:
        """`variables` are the names of those that the case has."""
        meant = next((other for other in variables if name != other and name in re.split(r"\W", other)), None)
        remedy = "Define it under vars."
        if meant is not None:
            new = re.sub(r"\W", "_", meant)
            remedy = f"A template cannot name {shown(meant)}: rename the variable to {new}, here and under vars."
        super().__init__(f"there is no variable {shown(name)}\n{remedy}")


class Templates:
    """Renders the templates of one suite. It stops if too many of them reach a limit, instead of waiting for each."""

    def __init__(self, own_filters: Iterable[str] = ()) -> None:
        """`own_filters` are the names of filters that the suite defines in code (`nunjucksFilters`)."""
        self._limits_reached = 0
        names = "|".join(re.escape(name) for name in own_filters)
        self._own_filter = re.compile(rf"\|\s*({names})\b") if names else None

    def render(self, text: str, variables: Mapping[str, Any]) -> str:
        """Return a text with its templates evaluated. Inserted text is not searched again.

        Raises:
            UnsupportedError: it has a template for which promptfoo might give another text.
            ValueError: a variable is not defined, or a limit was reached. The second line of the message is the remedy.
        """
        if not MARK.search(text):
            return text
        parts = VARIABLE.split(text)
        # Nunjucks reads {{{a}} as a mapping, not as a brace before {{a}}.
        is_simple = not any(MARK.search(part) for part in parts[::2]) and not any(
            part.endswith("{") for part in parts[:-1:2]
        )
        if not is_simple or not LITERALS.isdisjoint(parts[1::2]):
            return _of_bounded_length([self._evaluated(text, variables)])
        for i in range(1, len(parts), 2):
            if parts[i] not in variables:
                raise MissingVariableError(parts[i], variables)
            parts[i] = javascript.text(variables[parts[i]])
        return _of_bounded_length(parts)

    def render_lines(self, text: str, variables: Mapping[str, Any]) -> str:
        """Render the text of a prompt or a variable. promptfoo leaves it as it is if a line break interrupts a tag."""
        if not BROKEN.search(text):
            return self.render(text, variables)
        if VARIABLE.search(text) or "{%" in text:
            raise UnsupportedError("a template with a line break inside")
        return text

    def _evaluated(self, text: str, variables: Mapping[str, Any]) -> str:
        if self._own_filter and (named := self._own_filter.search(text)):
            raise UnsupportedError(f"a template with the filter {named[1]} of nunjucksFilters")
        if self._limits_reached >= MAX_LIMITS_REACHED:
            raise ValueError("is not rendered, because other templates reached a limit\nMake those simpler first.")
        try:
            (found,) = _process().work(None, [{"text": text, "variables": dict(variables)}])
        except LimitReachedError as reached:
            self._limits_reached += 1
            raise ValueError(f"rendering this template {reached}\nMake it simpler.") from None
        if isinstance(found, Refused):
            raise UnsupportedError(f"a template with {found.reason}")
        if name := found["missing"]:
            raise MissingVariableError(name, variables)
        return str(found["text"])


def _of_bounded_length(parts: Sequence[str]) -> str:
    if sum(map(len, parts)) > MAX_FILLED:
        remedy = "Shorten it."
        raise ValueError(f"the text is longer than {MAX_FILLED} characters after its variables are replaced\n{remedy}")
    return "".join(parts)


@lru_cache(maxsize=1)
def _process() -> LimitedProcess:
    return LimitedProcess(CHILD, LIMITS)
