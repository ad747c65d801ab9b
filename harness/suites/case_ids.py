"""Ids of cases: digests of what a case asks and requires, numbers for cases from one place, errors about equal ids."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import Any

from harness.core.errors import HarnessError
from harness.core.suite import Assertion, Case, Message
from harness.core.yaml import Document, raise_all, shown
from harness.suites.notices import Notices


def digest(messages: tuple[Message, ...], assertions: tuple[Assertion, ...], threshold: float | None = None) -> str:
    """Return ten hexadecimal digits that identify a case's messages, assertions and threshold."""
    content: list[Any] = [[(m.role, m.content) for m in messages], [_content(a) for a in assertions]]
    # The threshold is added only if there is one, so that ids of cases without a threshold do not change.
    content += [] if threshold is None else [threshold]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:10]


def _content(assertion: Assertion) -> list[Any]:
    content = [assertion.name, assertion.value, assertion.weight, assertion.threshold]
    more = [assertion.metric, [_content(child) for child in assertion.children]]
    # Each part is added only if there is one, so that ids of assertions without it do not change.
    content += more if any(more) else []
    return [*content, list(assertion.transforms)] if assertion.transforms else content


def numbered(cases: list[tuple[Case, Document]]) -> list[tuple[Case, Document]]:
    """Number the ids of cases that come from one place: of its prompts, the values of its variables, a scenario."""
    found: list[tuple[Case, Document]] = []
    keys = [_source(case, document) for case, document in cases]
    several, numbers = Counter(keys), Counter[Any]()
    for key, (case, document) in zip(keys, cases, strict=True):
        numbers[key] += 1
        is_numbered = several[key] > 1 and not _is_digest(case)
        found.append((replace(case, id=f"{case.id}-{numbers[key]}") if is_numbered else case, document))
    return found


def _source(case: Case, document: Document) -> Any:
    return case.id, document.place()


def _is_digest(case: Case) -> bool:
    """Whether the id of a case was not written, but computed."""
    return case.id == digest(case.messages, case.assertions, case.threshold)


def check_ids(cases: list[tuple[Case, Document]]) -> None:
    first: dict[str, Document] = {}
    problems = []
    for case, document in cases:
        if case.id in first:
            problems.append(_repeated(case, first[case.id], document))
        first.setdefault(case.id, document)
    raise_all(problems)


def _repeated(case: Case, first: Document, second: Document) -> HarnessError:
    """Return the error about two cases with the same id."""
    if first.place() != second.place():
        places = f"{first.place()} and {second.place()}"
        remedy = "Give each its own id, or remove one of them."
        return second.wrong(f"two cases have the id {shown(case.id)}: {places}", remedy, ("id",))
    remedy = (
        "Remove the prompt, the value of a variable, or the file that is there twice, or a value that no prompt uses; "
        "or leave repeated cases out with --skip-unsupported."
    )
    return second.wrong(f"this case asks {shown(case.prompt)} twice, with the same assertions", remedy)


def without_repeats(cases: list[tuple[Case, Document]], notices: Notices) -> list[tuple[Case, Document]]:
    """Leave out cases whose id, a digest, shows that they ask and require the same as an earlier one."""
    kept: dict[str, tuple[Case, Document]] = {}
    for case, document in cases:
        if case.id in kept and _is_digest(case):
            notices.repeated += 1
        else:
            kept[case.id if _is_digest(case) else f"{case.id} {len(kept)}"] = (case, document)
    return list(kept.values())
