"""How many answers were cut at the suite's limit of new tokens, in sentences for the top of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.suite_changes import endless_rows
from harness.core.names import BASE
from harness.core.run_results import Results
from harness.core.scores import Rate, Sample
from harness.core.suite import Role

NOTABLE = 0.05
"""Share of cut answers above which the report mentions them at its top."""


@dataclass(frozen=True)
class CutAnswers:
    """Answers to the cases of one role that were cut: of the base model, and of the variants."""

    role: Role
    held_out: bool
    """Whether these are the cases of the confirmation."""
    base: Rate
    """`passed` is the number of cut answers."""
    variants: dict[str, Rate]
    """By variant, in the grid's order."""

    @property
    def notable(self) -> bool:
        return any((rate.value or 0.0) > NOTABLE for rate in (self.base, *self.variants.values()))


def cut_answers(results: Results) -> tuple[CutAnswers, ...]:
    """Return, for each role, how many answers were cut: first in the main cases, then in the confirmation."""
    return tuple(
        found
        for held_out, samples in ((False, results.samples), (True, results.confirmed_samples))
        for found in _by_role(results, samples, held_out)
    )


def _by_role(results: Results, samples: Sequence[Sample], held_out: bool) -> Iterator[CutAnswers]:
    roles = {case.id: case.role for case in results.run.suite.cases}
    found: dict[Role, dict[str, list[bool]]] = {role: {} for role in Role}
    for sample in samples:
        if sample.case in roles:
            found[roles[sample.case]].setdefault(sample.variant, []).append(sample.answer.truncated)
    for role, own in found.items():
        if own:
            rates = {name: Rate(sum(cut), len(cut)) for name, cut in own.items()}
            yield CutAnswers(role, held_out, rates.pop(BASE, Rate(0, 0)), rates)


def _cut(samples: Sequence[Sample], name: str) -> Rate:
    own = [sample.answer.truncated for sample in samples if sample.variant == name]
    return Rate(sum(own), len(own))


def in_all_main_cases(results: Results, compared: str) -> str:
    """Return how many answers to main cases were cut, of the base model and of the variant `compared`."""
    found = ((name, _cut(results.samples, name)) for name in (BASE, compared))
    return ", ".join(f"{name} {_share(rate)}" for name, rate in found if rate.total)


def sentences(results: Results, compared: str) -> tuple[str, ...]:
    """Return one sentence for each role of which more than 5% of the answers were cut, of the base or of a variant.

    The variant `compared` is named; of the others, the smallest and the largest share are given. If the training rows
    of `compared` lose the ends of their answers, a last sentence says so, because more tokens do not help then.
    """
    found = [_sentence(each, compared) for each in cut_answers(results) if each.notable]
    rows = endless_rows(results, compared) if found else None
    return (*found, *([f"{rows.words}: raise max_length in the grid first"] if rows else []))


def _sentence(found: CutAnswers, compared: str) -> str:
    others = [rate for name, rate in found.variants.items() if name != compared]
    parts = [f"base {_share(found.base)}"] if found.base.total else []
    if own := found.variants.get(compared):
        parts.append(f"{compared} {_share(own)}")
    if others:
        low, high = (pick(others, key=lambda rate: rate.value or 0.0) for pick in (min, max))
        spread = _share(high) if low == high else f"from {_share(low)} to {_share(high)}"
        parts.append(f"{'other variants' if own else 'variants'} {spread}")
    return f"{'held-out ' if found.held_out else ''}{found.role}: {', '.join(parts)}"


def _share(rate: Rate) -> str:
    return f"{100 * (rate.value or 0.0):.0f}% ({rate.passed} of {rate.total})"
