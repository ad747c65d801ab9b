"""Collect notices about a suite: keys that are ignored or not supported, unwritten cases, a
system prompt that is not trained, and code that it runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

from pydantic import BaseModel

from harness.core.errors import Place, SuiteError
from harness.core.suite import Example
from harness.core.wording import plural

SHOWN_PLACES = 100
SHOWN_STUBS = 3
SHOWN_PROMPT = 300
"""Largest number of characters of a system message that a warning quotes."""


class UnsupportedError(Exception):
    """A part of a suite uses a feature of promptfoo that the harness does not support. The text names the feature."""


class Notices:
    """Notices that are collected while a suite is read. `skip`: whether unsupported features are skipped."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.left_out = 0
        """Number of cases that are left out because of an unsupported key or assertion."""
        self.without_assertions = 0
        """Number of cases that are left out because they have no assertions."""
        self.repeated = 0
        """Number of cases that are left out because they repeat another case."""
        self._ignored: dict[str, list[Place]] = defaultdict(list)
        self._unsupported: dict[str, list[Place]] = defaultdict(list)
        self._code: dict[str, list[Place]] = defaultdict(list)
        self._stubs: list[str] = []
        self._untrained: Place | None = None
        self._unasked: tuple[Example, ...] = ()
        self._rows: tuple[str, ...] = ()

    def ignore(self, what: str, place: Place) -> None:
        self._ignored[what].append(place)

    def unsupported(self, what: str, place: Place) -> None:
        self._unsupported[what].append(place)

    def runs_code(self, what: str, place: Place) -> None:
        self._code[what].append(place)

    def stub(self, case: str, place: Place) -> None:
        self._stubs.append(f"{case} ({place})")

    def untrained_system_prompt(self, place: Place) -> None:
        """Note that no training row has the suite's system prompt, which is at `place`."""
        self._untrained = place

    def unasked_system_prompts(self, rows: tuple[Example, ...]) -> None:
        """Note that these training rows have a system message, and no case is asked with one."""
        self._unasked = rows

    def about_rows(self, sentences: tuple[str, ...]) -> None:
        """Note how the training rows were read: what was left out or guessed."""
        self._rows = sentences

    def raise_unsupported(self) -> None:
        """Raise one error that names all places of unsupported features. Do nothing if they are skipped."""
        if self.skip or not self._unsupported:
            return
        found = [f"{what}: {_places(places)}" for what, places in sorted(self._unsupported.items())]
        first = min(
            (place for places in self._unsupported.values() for place in places),
            key=lambda p: (p.line or 0, p.column or 0),
        )
        remedy = "Remove them, or skip and count them with --skip-unsupported."
        raise SuiteError("\n".join(["these features are not supported:", *found]), remedy=remedy, place=first)

    def sentences(self) -> Iterator[str]:
        """Yield the notices as sentences, in a fixed order."""
        if self._unsupported:
            counts = ", ".join(f"{what} ({_times(places)})" for what, places in sorted(self._unsupported.items()))
            yield f"Skipped, because it is not supported: {counts}."
        if self.left_out:
            yield f"Left out, because no supported assertion remains: {self.left_out} of the cases."
        if self.without_assertions:
            yield f"Left out, because they have no assertions: {self.without_assertions} of the cases."
        if self.repeated:
            yield f"Left out, because they repeat another case: {self.repeated} of the cases."
        if self._stubs:
            named, more = ", ".join(self._stubs[:SHOWN_STUBS]), len(self._stubs) - SHOWN_STUBS
            named += f" and {more} more" if more > 0 else ""
            yield f"Not asked, because the prompt is still TODO: {named}. Replace TODO with the user's message."
        if self._ignored:
            each = (f"{what} ({_where(places)})" for what, places in sorted(self._ignored.items()))
            yield f"Ignored: {', '.join(each)}."
        if self._untrained:
            yield (
                f"Warning: cases are asked with the system_prompt ({self._untrained}), and no training row has it, so "
                "models are trained otherwise than they are asked. Put it before every row, as the message "
                '{"role": "system", "content": ...}, or remove system_prompt.'
            )
        if self._unasked:
            yield _unasked(self._unasked)
        yield from self._rows
        if self._code:
            each = (f"{what} ({_times(places)})" for what, places in sorted(self._code.items()))
            yield f"Runs code, and is scored only with --allow-code: {', '.join(each)}."


def _unasked(rows: tuple[Example, ...]) -> str:
    """Return the warning about training rows with a system message, which no case has."""
    distinct = list(dict.fromkeys(row.messages[0].content for row in rows))
    which = plural(len(rows), "training row has", "training rows have")
    if len(distinct) == 1:
        text = json.dumps(distinct[0], ensure_ascii=False)
        what = f"system_prompt: {text}" if len(text) <= SHOWN_PROMPT else "this message as system_prompt"
        remedy = f"Write {what} into the suite's file"
    else:
        remedy = "Write each case as messages: [{role: system, content: ...}, {role: user, content: ...}]"
    return (
        f"Warning: {which} a system message, and no case is asked with one, so models are asked otherwise than they "
        f"are trained. {remedy}, or remove the system messages from the rows."
    )


def _places(places: list[Place]) -> str:
    more = len(places) - SHOWN_PLACES
    return ", ".join(map(str, dict.fromkeys(places[:SHOWN_PLACES]))) + (f" and {more} more" if more > 0 else "")


def _where(places: list[Place]) -> str:
    distinct = list(dict.fromkeys(map(str, places)))
    return distinct[0] if len(distinct) == 1 else f"{distinct[0]} and {len(distinct) - 1} more"


def _times(places: list[Place]) -> str:
    return "once" if len(places) == 1 else f"{len(places)} times"


def marked(form: BaseModel, mark: str) -> list[str]:
    """Return the keys that are set in a form and whose description is `mark`."""
    fields = type(form).model_fields
    given = [name for name in fields if name in form.model_fields_set and fields[name].description == mark]
    return [fields[name].alias or name for name in given if getattr(form, name) not in (None, False)]
