"""The prompts section: every case with the base's answer beside the tuned ones, equal answers shown once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.analysis import reducers
from harness.analysis.contamination import leaks_in_results
from harness.core.results import Results
from harness.core.scores import Check, Sample
from harness.core.suite import Case, Leak, LeakLabel, Message, Split
from harness.report import difference
from harness.report.difference import Piece
from harness.report.words import anchor

HEAD = 1000
"""Characters of an answer that show at once; the rest opens on request."""


@dataclass(frozen=True)
class Text:
    """A text of any length: `rest` is folded away. `pieces` are its head again, where some words of it are marked."""

    head: str
    rest: str = ""
    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, text: str, pieces: tuple[Piece, ...] = ()) -> Text:
        if len(text) > HEAD * 1.2:
            return cls(text[:HEAD], text[HEAD:])
        return cls(text, pieces=pieces if len(pieces) > 1 else ())


@dataclass(frozen=True)
class Given:
    """One distinct answer to a case, with everyone who gave it."""

    text: Text
    same_as_base: bool
    truncated: bool
    passed: bool | None
    """None: it could not be scored, and `error` says why."""
    error: str
    failed: tuple[Check, ...]
    """None of them where the base has the same answer with the same verdicts."""
    who: tuple[str, ...]
    by: tuple[str, ...]
    """`number.seed` of each that gave it, for the page's script."""
    dropped: tuple[int, ...] = ()
    """Which words of the base's answer are not in it."""
    repeats: str = ""
    """How the case's repeats fared, where there are several; `passed` is then their verdict together."""

    @property
    def verdict(self) -> str:
        return "none" if self.passed is None else "pass" if self.passed else "fail"


@dataclass(frozen=True)
class Flip:
    """What became of a case: `kind` is kept, fixed, broken, failing, void or none.

    `count` of the `seeds` are what is so, where a variant's seeds differ.
    """

    kind: str
    count: int = 0
    seeds: int = 0

    @property
    def short(self) -> str:
        return {"none": "not compared", "failing": "still fails"}.get(self.kind, self.kind)

    @property
    def share(self) -> str:
        return f"{self.count}/{self.seeds}" if self.count < self.seeds else ""

    @property
    def words(self) -> str:
        return self.short + (f" in {self.count} of {self.seeds} seeds" if self.share else "")


@dataclass(frozen=True)
class CaseView:
    anchor: str
    case: Case
    leak: str
    """Whether the training rows hold its prompt, in words."""
    before: tuple[Message, ...]
    """The messages ahead of the prompt."""
    prompt: Text
    reference: Text | None
    expects: tuple[str, ...]
    void: str
    base: tuple[Given, ...]
    shown: tuple[Given, ...]
    """Of the variant that the page compares with at first."""
    others: tuple[Given, ...]
    flip: Flip
    error: bool
    """Whether an answer shown could not be scored."""


@dataclass(frozen=True)
class LedgerRow:
    """What became of one case under every variant, in the order of the variants."""

    anchor: str
    case: Case
    base: str
    """pass, fail or none."""
    flips: tuple[Flip, ...]


_Notes = Mapping[tuple[str, int, str], str]
"""What is said of the repeats, by variant, seed and case."""


@dataclass
class _Group:
    sample: Sample
    note: str
    who: dict[str, list[int]] = field(default_factory=dict)


def cases(results: Results, split: Split, compared: str, numbers: Mapping[str, int]) -> tuple[CaseView, ...]:
    """Every case of a split in the suite's order; `compared` is the variant shown beside the base."""
    samples = results.samples if split is Split.MAIN else results.confirmed_samples
    by_case = _by_case(results, samples)
    notes = {(own[0].variant, own[0].seed, own[0].case): _repeated(own) for own in reducers.repeats(samples)}
    found = leaks_in_results(results)
    return tuple(
        _case(case, by_case.get(case.id, []), results.void.get(case.id, ""), compared, numbers, notes, found[case.id])
        for case in results.run.suite.of(split)
    )


def _by_case(results: Results, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    by_case: dict[str, list[Sample]] = {}
    for sample in reducers.reduced(samples, results.run.suite.reducer):
        by_case.setdefault(sample.case, []).append(sample)
    return by_case


def ledger(results: Results) -> tuple[LedgerRow, ...]:
    """Every case that chose, under every variant."""
    by_case = _by_case(results, results.samples)
    return tuple(_ledger_row(results, case, by_case.get(case.id, [])) for case in results.run.suite.of(Split.MAIN))


def _ledger_row(results: Results, case: Case, samples: Sequence[Sample]) -> LedgerRow:
    tuned: dict[str, list[Sample]] = {variant.name: [] for variant in results.variants}
    base = [s for s in samples if s.variant not in tuned]
    for sample in samples:
        if sample.variant in tuned:
            tuned[sample.variant].append(sample)
    void = results.void.get(case.id, "")
    flips = tuple(_flip(base, own, void) for own in tuned.values())
    scored = base and base[0].score.value is not None
    return LedgerRow(anchor(case.id), case, ("pass" if base[0].score.passed else "fail") if scored else "none", flips)


def leaked(leak: Leak) -> str:
    """Whether the training rows hold a case's prompt, in a few words."""
    if leak.label is LeakLabel.SEEN:
        return f"seen: training row {leak.line}"
    return "unseen" if leak.label is LeakLabel.UNSEEN else f"near-duplicate of training row {leak.line}"


def _repeated(own: Sequence[Sample]) -> str:
    """How the repeats of a case fared, where there are several; the page shows the first of them."""
    passed = sum(sample.score.passed for sample in own)
    return f"{passed} of {len(own)} repeats passed, the first is shown" if len(own) > 1 else ""


def _case(
    case: Case, samples: Sequence[Sample], void: str, compared: str, numbers: Mapping[str, int], notes: _Notes,
    leak: Leak,
) -> CaseView:  # fmt: skip
    base = [s for s in samples if s.variant not in numbers]
    tuned = [s for s in samples if s.variant in numbers]
    given = _grouped(tuned, base[0] if base else None, numbers, notes)
    mine = tuple(g for g in given if _gave(g, numbers.get(compared)))
    asked = max((n for n, m in enumerate(case.messages) if m.role == "user"), default=len(case.messages))
    before = _grouped(base, None, numbers, notes)
    return CaseView(
        anchor=anchor(case.id),
        case=case,
        leak=leaked(leak),
        before=case.messages[:asked],
        prompt=Text.of(case.prompt),
        reference=Text.of(case.reference) if case.reference is not None else None,
        expects=tuple(_expectation(case)),
        void=void,
        base=tuple(_without(given, mine) for given in before),
        shown=mine,
        others=tuple(g for g in given if not _gave(g, numbers.get(compared))),
        flip=_flip(base, [s for s in tuned if s.variant == compared], void),
        error=any(given.passed is None for given in (*before, *mine)),
    )


def _without(base: Given, shown: Sequence[Given]) -> Given:
    """The base's answer with the words marked that the first answer beside it has not."""
    dropped = shown[0].dropped if shown else ()
    if not dropped or base.text.rest:
        return base
    return replace(base, text=replace(base.text, pieces=difference.marked(difference.split(base.text.head), dropped)))


def _gave(given: Given, number: int | None) -> bool:
    return any(key.split(".")[0] == str(number) for key in given.by)


def _grouped(samples: Iterable[Sample], base: Sample | None, numbers: Mapping[str, int], notes: _Notes) -> list[Given]:
    """Equal answers with equal verdicts once: log-probabilities and repeats can tell equal texts apart."""
    groups: dict[tuple[object, ...], _Group] = {}
    for sample in samples:
        note, score = notes[sample.variant, sample.seed, sample.case], sample.score
        key = (sample.answer.text, sample.answer.truncated, score.passed, score.checks, note)
        group = groups.setdefault(key, _Group(sample, note))
        group.who.setdefault(sample.variant, []).append(sample.seed)
    seeds: dict[str, int] = {}
    for group in groups.values():
        for name, own in group.who.items():
            seeds[name] = seeds.get(name, 0) + len(own)
    return [_given(group, base, numbers, seeds) for group in groups.values()]


def _given(group: _Group, base: Sample | None, numbers: Mapping[str, int], seeds: Mapping[str, int]) -> Given:
    answer, score = group.sample.answer, group.sample.score
    same = base is not None and (base.answer.text, base.answer.truncated) == (answer.text, answer.truncated)
    known = same and base is not None and base.score.checks == score.checks
    found = difference.difference(base.answer.text, answer.text) if base and not same else None
    return Given(
        text=Text("") if same else Text.of(answer.text, found.new if found else ()),
        same_as_base=same,
        truncated=answer.truncated,
        passed=None if score.value is None else score.passed,
        error=score.error,
        failed=() if known else tuple(check for check in score.checks if not check.passed),
        who=tuple(_who(name, own, seeds[name]) for name, own in group.who.items()),
        by=tuple(f"{numbers.get(name, 0)}.{seed}" for name, own in group.who.items() for seed in own),
        dropped=found.dropped if found else (),
        repeats=group.note,
    )


def _who(name: str, seeds: Sequence[int], of: int) -> str:
    """The seeds are said only where another seed of the same variant answered otherwise."""
    if len(seeds) == of:
        return name
    return f"{name} ({_seeds(seeds)})"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _flip(base: Sequence[Sample], tuned: Sequence[Sample], void: str) -> Flip:
    """The page's script repeats this for the variant that a reader selects; the words are the same there."""
    if void:
        return Flip("void")
    scored = reducers.scored(tuned)
    if not base or base[0].score.value is None or not scored:
        return Flip("none")
    passes, asked = sum(s.score.passed for s in scored), len(scored)
    if base[0].score.passed:
        return Flip("kept") if passes == asked else Flip("broken", asked - passes, asked)
    return Flip("fixed", passes, asked) if passes else Flip("failing")


def _expectation(case: Case) -> Iterable[str]:
    for check in case.assertions:
        yield check.name if check.value is None else f"{check.name}: {_short(_value(check.value))}"


def _value(value: Any) -> str:
    """A list as people write one, not as Python does."""
    return " | ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
