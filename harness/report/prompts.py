"""The prompts section: each case with the base model's answer beside the tuned answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.analysis import reducers
from harness.analysis.contamination import leaks_in_results
from harness.core.run_results import Results
from harness.core.scores import Check, Sample
from harness.core.suite import Case, Leak, LeakLabel, Message, Split
from harness.report import word_diff
from harness.report.case_changes import CaseChange, by_case_id, case_change
from harness.report.formatting import anchor
from harness.report.word_diff import Piece

HEAD = 1000
"""Number of characters of a long text that are shown at first. A click shows the rest."""


@dataclass(frozen=True)
class Text:
    """A text of any length. `rest` is hidden at first. If words of `head` are marked, `pieces` are its parts."""

    head: str
    rest: str = ""
    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, text: str, pieces: tuple[Piece, ...] = ()) -> Text:
        if len(text) > HEAD * 1.2:
            return cls(text[:HEAD], text[HEAD:])
        return cls(text, pieces=pieces if len(pieces) > 1 else ())


@dataclass(frozen=True)
class DistinctAnswer:
    """One distinct answer to a case, with the variants and seeds that gave it."""

    text: Text
    same_as_base: bool
    truncated: bool
    passed: bool | None
    """None if the answer could not be scored, for the reason in `error`."""
    error: str
    failed: tuple[Check, ...]
    """The failed checks; empty if the base model gave the same answer with the same verdicts."""
    who: tuple[str, ...]
    """Names of the variants that gave the answer. If a variant gave several, its seeds for this one are added."""
    by: tuple[str, ...]
    """Each variant and seed that gave the answer, written as `number.seed`, for `page.js`."""
    dropped: tuple[int, ...] = ()
    """Positions of the words of the base model's answer that this answer lacks."""
    repeats: str = ""
    """How many repeats passed, if the case has several; `passed` is then the verdict on all of them."""

    @property
    def verdict(self) -> str:
        return "none" if self.passed is None else "pass" if self.passed else "fail"


@dataclass(frozen=True)
class CaseView:
    """One case of the section, with its prompt and its answers."""

    anchor: str
    case: Case
    leak: str
    """In words, whether the training rows contain the prompt."""
    before: tuple[Message, ...]
    """The messages before the prompt."""
    prompt: Text
    reference: Text | None
    expects: tuple[str, ...]
    base: tuple[DistinctAnswer, ...]
    shown: tuple[DistinctAnswer, ...]
    """Answers of the variant that is shown at first beside the base model."""
    others: tuple[DistinctAnswer, ...]
    """Answers that only other variants gave."""
    change: CaseChange
    error: bool
    """Whether one of the answers shown could not be scored."""


_Repeats = Mapping[tuple[str, int, str], str]
"""For each variant, seed and case: how many repeats passed, in words."""


@dataclass
class _Group:
    """Samples with the same answer and the same verdicts. `sample` is the first; `who` has each variant's seeds."""

    sample: Sample
    repeats: str
    who: dict[str, list[int]] = field(default_factory=dict)


def cases(results: Results, split: Split, compared: str, numbers: Mapping[str, int]) -> tuple[CaseView, ...]:
    """Return the cases of a split in the suite's order. `compared` is the variant first shown beside its base model."""
    samples = results.samples if split is Split.MAIN else results.confirmed_samples
    by_case = by_case_id(results, samples)
    repeats = {(own[0].variant, own[0].seed, own[0].case): _repeated(own) for own in reducers.repeats(samples)}
    found = leaks_in_results(results)
    base = results.base_beside(compared).name
    return tuple(
        _case(case, by_case.get(case.id, []), base, compared, numbers, repeats, found[case.id])
        for case in results.run.suite.of(split)
    )


def contamination(leak: Leak) -> str:
    """Write the contamination label of a case, with the number of the training row."""
    if leak.label is LeakLabel.SEEN:
        return f"seen: training row {leak.line}"
    return "unseen" if leak.label is LeakLabel.UNSEEN else f"near-duplicate of training row {leak.line}"


def _repeated(own: Sequence[Sample]) -> str:
    """Write how many repeats of a case passed; empty if there is only one. The page shows the first repeat."""
    passed = sum(sample.score.passed for sample in own)
    return f"{passed} of {len(own)} repeats passed, the first is shown" if len(own) > 1 else ""


def _case(
    case: Case, samples: Sequence[Sample], base_name: str, compared: str, numbers: Mapping[str, int],
    repeats: _Repeats, leak: Leak,
) -> CaseView:  # fmt: skip
    base = [s for s in samples if s.variant == base_name]
    tuned = [s for s in samples if s.variant in numbers]
    given = _grouped(tuned, base[0] if base else None, numbers, repeats)
    mine = tuple(g for g in given if _gave(g, numbers.get(compared)))
    last = max((n for n, m in enumerate(case.messages) if m.role == "user"), default=len(case.messages))
    before = _grouped(base, None, numbers, repeats)
    return CaseView(
        anchor=anchor(case.id),
        case=case,
        leak=contamination(leak),
        before=case.messages[:last],
        prompt=Text.of(case.prompt),
        reference=Text.of(case.reference) if case.reference is not None else None,
        expects=tuple(_expectation(case)),
        base=tuple(_with_dropped_words(given, mine) for given in before),
        shown=mine,
        others=tuple(g for g in given if not _gave(g, numbers.get(compared))),
        change=case_change(base, [s for s in tuned if s.variant == compared]),
        error=any(given.passed is None for given in (*before, *mine)),
    )


def _with_dropped_words(base: DistinctAnswer, shown: Sequence[DistinctAnswer]) -> DistinctAnswer:
    """Mark the words in the base model's answer that are missing from the first tuned answer shown beside it.

    If the base model's answer is too long to show in full, no word is marked.
    """
    dropped = shown[0].dropped if shown else ()
    if not dropped or base.text.rest:
        return base
    return replace(base, text=replace(base.text, pieces=word_diff.marked(word_diff.split(base.text.head), dropped)))


def _gave(given: DistinctAnswer, number: int | None) -> bool:
    return any(key.split(".")[0] == str(number) for key in given.by)


def _grouped(
    samples: Iterable[Sample], base: Sample | None, numbers: Mapping[str, int], repeats: _Repeats
) -> list[DistinctAnswer]:
    """Join samples with the same text and the same verdicts.

    Equal texts can have different verdicts, because scores can also depend on log-probabilities or on other repeats.
    """
    groups: dict[tuple[object, ...], _Group] = {}
    for sample in samples:
        passed, score = repeats[sample.variant, sample.seed, sample.case], sample.score
        key = (sample.answer.text, sample.answer.truncated, score.passed, score.checks, passed)
        group = groups.setdefault(key, _Group(sample, passed))
        group.who.setdefault(sample.variant, []).append(sample.seed)
    seeds: dict[str, int] = {}
    for group in groups.values():
        for name, own in group.who.items():
            seeds[name] = seeds.get(name, 0) + len(own)
    return [_given(group, base, numbers, seeds) for group in groups.values()]


def _given(group: _Group, base: Sample | None, numbers: Mapping[str, int], seeds: Mapping[str, int]) -> DistinctAnswer:
    answer, score = group.sample.answer, group.sample.score
    same = base is not None and (base.answer.text, base.answer.truncated) == (answer.text, answer.truncated)
    known = same and base is not None and base.score.checks == score.checks
    found = word_diff.word_diff(base.answer.text, answer.text) if base and not same else None
    return DistinctAnswer(
        text=Text("") if same else Text.of(answer.text, found.new if found else ()),
        same_as_base=same,
        truncated=answer.truncated,
        passed=None if score.value is None else score.passed,
        error=score.error,
        failed=() if known else tuple(check for check in score.checks if not check.passed),
        who=tuple(_who(name, own, seeds[name]) for name, own in group.who.items()),
        by=tuple(f"{numbers.get(name, 0)}.{seed}" for name, own in group.who.items() for seed in own),
        dropped=found.dropped if found else (),
        repeats=group.repeats,
    )


def _who(name: str, seeds: Sequence[int], total: int) -> str:
    """Write a variant's name. If its seeds gave several answers, add the seeds that gave this one."""
    if len(seeds) == total:
        return name
    return f"{name} ({_seeds(seeds)})"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _expectation(case: Case) -> Iterable[str]:
    for check in case.assertions:
        yield check.name if check.value is None else f"{check.name}: {_short(_value(check.value))}"


def _value(value: Any) -> str:
    """Write a value; the items of a list are separated by `|`."""
    return " | ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
