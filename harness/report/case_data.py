"""Every case with its answers, as compressed data that the page's script draws when a case is seen.

The data is a text of records, one for each case, which are divided by `RECORD`. The parts of a record are divided by
`PART`: a small JSON object by which cases are listed and filtered, a JSON list of the distinct answers, and the texts
to which these refer by number. Neither sign can be in a text, because control characters are made visible. Texts stand
outside of the JSON, so that the script can search them without reading it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from harness.analysis import reducers
from harness.analysis.contamination import leaks_in_results
from harness.core.outside_text import visible
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Case, Leak, LeakLabel, Split
from harness.report.case_changes import CaseChange, by_case_id, case_change, verdict
from harness.report.formatting import anchor
from harness.report.kinds import kind_of

RECORD, PART = "\x1e", "\x1f"
SIGNS = {"kept": "=", "fixed": "+", "broken": "-", "failing": "x", "none": "?"}
"""How a change is written in a case's line of changes, one sign for each variant."""
_NUMBERS = ("prompt", "reference")
"""Parts of a record that can be 0, the number of the first text. Other parts are left out if they are empty."""
LEVEL = 6
"""Level of compression. Higher levels take much longer and save 2%."""


def embedded(results: Results) -> str:
    """Return the data as base64 of a gzip file."""
    packed = gzip.compress(RECORD.join(records(results)).encode("utf-8", "replace"), LEVEL, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def records(results: Results) -> Iterator[str]:
    """Yield the record of every case: those used to choose a variant first, then the held-out ones."""
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    numbers |= {base.name: -n for n, base in enumerate(results.every_base)}
    made = _Run(results, numbers, leaks_in_results(results), kind_of(results.run.suite.cases))
    return chain(made.records(Split.MAIN, results.samples), made.records(Split.CONFIRM, results.confirmed_samples))


@dataclass
class _Texts:
    """The texts of one record, each once."""

    places: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))

    def parts(self) -> Iterator[str]:
        return map(visible, self.places)


@dataclass
class _Group:
    """Samples with the same answer and the same verdicts. `sample` is the first; `who` has each variant's seeds."""

    sample: Sample
    repeats: str
    who: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    results: Results
    numbers: Mapping[str, int]
    leaks: Mapping[str, Leak]
    kinds: Mapping[str, str]

    def records(self, split: Split, samples: Sequence[Sample]) -> Iterator[str]:
        by_case = by_case_id(self.results, samples)
        repeats = {}
        if self.results.run.suite.repeats > 1:
            repeats = {(own[0].variant, own[0].seed, own[0].case): _repeated(own) for own in reducers.repeats(samples)}
        for case in self.results.run.suite.of(split):
            yield self._record(case, by_case.get(case.id, []), repeats)

    def _record(self, case: Case, samples: Sequence[Sample], repeats: Mapping[tuple[str, int, str], str]) -> str:
        texts = _Texts()
        given: dict[str, list[Sample]] = {}
        known = [sample for sample in samples if sample.variant in self.numbers]
        for sample in known:
            given.setdefault(sample.variant, []).append(sample)
        head = self._head(case, given, texts)
        answers = [self._answer(group, given, texts) for group in _grouped(known, repeats)]
        return PART.join((_json(head), _json(answers), *texts.parts()))

    def _head(self, case: Case, given: Mapping[str, Sequence[Sample]], texts: _Texts) -> dict[str, Any]:
        held_out = case.split is Split.CONFIRM
        changes = [
            case_change(given.get(self.results.base_of(variant).name, ()), given.get(variant.name, ()))
            for variant in self.results.variants
        ]
        last = max((n for n, m in enumerate(case.messages) if m.role == "user"), default=len(case.messages))
        found = {
            "anchor": anchor(case.id),
            "id": visible(case.id),
            "role": case.role.value,
            "kind": visible(self.kinds[case.id]),
            "held": held_out,
            "changes": "".join(SIGNS[change.kind] for change in changes),
            "parts": _parts(changes),
            "unscored": sorted(
                {self.numbers[name] for name, own in given.items() if any(s.score.value is None for s in own)}
            ),
            "bases": [verdict(given.get(base.name, ())) for base in self.results.every_base],
            "prompt": texts.add(case.prompt),
            "before": [[visible(m.role), texts.add(m.content)] for m in case.messages[:last]],
            "reference": texts.add(case.reference) if case.reference is not None else None,
            "leak": contamination(self.leaks[case.id]),
            "group": visible(case.group),
            "line": case.line,
            "description": visible(case.description) if case.description != case.id else "",
            "expects": [visible(text) for text in _expectations(case)],
        }
        return {name: value for name, value in found.items() if value is not None and (value or name in _NUMBERS)}

    def _answer(self, group: _Group, given: Mapping[str, Sequence[Sample]], texts: _Texts) -> dict[str, Any]:
        answer, score = group.sample.answer, group.sample.score
        found = {
            "text": texts.add(answer.text),
            "by": [self._by(name, seeds, len(given[name])) for name, seeds in group.who.items()],
            "passed": None if score.value is None else score.passed,
            "cut": answer.truncated,
            "error": visible(score.error),
            "failed": [[visible(c.assertion), visible(c.reason)] for c in score.checks if not c.passed],
            "repeats": group.repeats,
        }
        return {name: value for name, value in found.items() if value or name in ("passed", "text")}

    def _by(self, name: str, seeds: Sequence[int], total: int) -> str:
        """Write who gave an answer: the variant's number, and its seeds if other seeds answered otherwise.

        The base model has the number 0; in the plan's further quantisations, it has the numbers -1, -2 and so on.
        """
        who = str(self.numbers[name])
        return who if len(seeds) == total else f"{who}.{','.join(map(str, seeds))}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _parts(changes: Sequence[CaseChange]) -> dict[int, str]:
    """Return, by the variant's place, for how many seeds a change holds, if not for all: `2/3`."""
    return {n: change.share for n, change in enumerate(changes) if change.share}


def _grouped(samples: Sequence[Sample], repeats: Mapping[tuple[str, int, str], str]) -> list[_Group]:
    """Join samples with the same text and the same verdicts.

    Equal texts can have different verdicts, because scores can also depend on log-probabilities or on other repeats.
    """
    groups: dict[tuple[object, ...], _Group] = {}
    for sample in samples:
        passed, score = repeats.get((sample.variant, sample.seed, sample.case), ""), sample.score
        key = (sample.answer.text, sample.answer.truncated, score.passed, score.value is None, score.checks, passed)
        group = groups.setdefault(key, _Group(sample, passed))
        group.who.setdefault(sample.variant, []).append(sample.seed)
    return list(groups.values())


def contamination(leak: Leak) -> str:
    """Write the contamination label of a case, with the number of the training row."""
    if leak.label is LeakLabel.SEEN:
        return f"seen: training row {leak.line}"
    return "unseen" if leak.label is LeakLabel.UNSEEN else f"near-duplicate of training row {leak.line}"


def _repeated(own: Sequence[Sample]) -> str:
    """Write how many repeats of a case passed; empty if there is only one. The page shows the first repeat."""
    passed = sum(sample.score.passed for sample in own)
    return f"{passed} of {len(own)} repeats passed, the first is shown" if len(own) > 1 else ""


def _expectations(case: Case) -> Iterator[str]:
    for check in case.assertions:
        yield check.name if check.value is None else f"{check.name}: {_short(_value(check.value))}"


def _value(value: Any) -> str:
    """Write a value; the items of a list are separated by `|`."""
    return " | ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
