"""Recognise the attacks of a red team, whose text promptfoo asks as it stands.

promptfoo replaces templates and reads files in every variable of a case but one: the variable with the attack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from harness.suites.assertions import AssertionForm
from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.template_filters import true

TYPE = "promptfoo:redteam:"
"""Begins the type of every assertion that only promptfoo's own service can judge."""
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
NAMED = re.compile(r"\{\{\s*([^{}\s|]+)\s*(?:\|[^}]+)?\}\}|\{%\s*(?:if|for)\s+([^{}\s]+)\s*.*?%\}")
LOOP = re.compile(r"\{%\s*for\s+(\w+)\s+in\s+(\w+)\s*%\}", re.ASCII)


def is_attack(assertions: Iterable[AssertionForm], metadata: Any) -> bool:
    """Whether a case is an attack by its assertions, or by what promptfoo's generator wrote into its metadata."""
    written = metadata if isinstance(metadata, dict) else {}
    is_generated = isinstance(written.get("pluginId"), str) and any(
        true(written.get(name)) for name in ("pluginConfig", "goal")
    )
    return is_generated or any(map(_is_of_red_team, assertions))


def _is_of_red_team(assertion: AssertionForm) -> bool:
    return assertion.type.startswith(TYPE) or any(map(_is_of_red_team, assertion.children or ()))


def attacked(templates: Iterable[str], variables: Mapping[str, Any], redteam: Any) -> str | None:
    """Return the name of the variable that holds the attack of a case; None if it has no prompts.

    Args:
        templates: the prompts of the case.
        redteam: the value of the suite's key `redteam`; None if it has none.

    Raises:
        UnsupportedError: it is not the same variable in each prompt, or the attack is in a file, which promptfoo
            does not read.
    """
    names = {_attacked(template, variables, redteam) for template in templates}
    if len(names) > 1:
        raise UnsupportedError("prompts of a red team that have the attack in different variables")
    name = names.pop() if names else None
    value = variables.get(name) if name is not None else None
    if isinstance(value, str) and value.startswith(("file://", "package:")):
        raise UnsupportedError("attacks of a red team in files")
    return name


def _attacked(template: str, variables: Mapping[str, Any], redteam: Any) -> str:
    own = redteam.get("injectVar") if isinstance(redteam, dict) else None
    if own:
        return str(own)
    named = _named(template)
    if redteam is not None and "prompt" in named and "prompt" in variables:
        return "prompt"
    return next((name for name in reversed(named) if name in variables), named[-1] if named else "prompt")


def _named(template: str) -> list[str]:
    """Return the names in a template as promptfoo finds them, in order."""
    template = COMMENT.sub("", template)
    found = dict.fromkeys(one[1] or one[2] for one in NAMED.finditer(template))
    for loop in LOOP.finditer(template):
        found.pop(loop[1], None)
        found.setdefault(loop[2])
    return list(found)
