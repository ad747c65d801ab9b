"""The prompts section: every case with the base's answer beside the tuned ones, equal answers shown once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness import reducers
from harness.records import Case, Check, Message, Results, Sample, Split
from harness.report.words import anchor

HEAD = 1000
"""Characters of an answer that show at once; the rest opens on request."""


@dataclass(frozen=True)
class Text:
    """A text of any length: `rest` is folded away."""

    head: str
    rest: str = ""


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
    own: str = ""
    """Which seeds of the variant shown beside the base gave it, where its seeds differ."""
    also: tuple[str, ...] = ()
    """Who else gave it, beside that variant."""
    repeats: str = ""
    """How the case's repeats fared, where there are several; `passed` is then their verdict together."""

    @property
    def verdict(self) -> str:
        return "none" if self.passed is None else "pass" if self.passed else "fail"


@dataclass(frozen=True)
class Flip:
    """What became of a case: `kind` is kept, fixed, broken, failing, void or none."""

    kind: str
    words: str


@dataclass(frozen=True)
class CaseView:
    anchor: str
    case: Case
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
    by_case: dict[str, list[Sample]] = {}
    for sample in reducers.reduced(samples, results.run.suite.reducer):
        by_case.setdefault(sample.case, []).append(sample)
    notes = {(own[0].variant, own[0].seed, own[0].case): _repeated(own) for own in reducers.repeats(samples)}
    return tuple(
        _case(case, by_case.get(case.id, []), results.void.get(case.id, ""), compared, numbers, notes)
        for case in results.run.suite.of(split)
    )


def _repeated(own: Sequence[Sample]) -> str:
    """How the repeats of a case fared, where there are several; the page shows the first of them."""
    passed = sum(sample.score.passed for sample in own)
    return f"{passed} of {len(own)} repeats passed, the first is shown" if len(own) > 1 else ""


def _case(
    case: Case, samples: Sequence[Sample], void: str, compared: str, numbers: Mapping[str, int], notes: _Notes
) -> CaseView:
    base = [s for s in samples if s.variant not in numbers]
    tuned = [s for s in samples if s.variant in numbers]
    given = _grouped(tuned, base[0] if base else None, numbers, notes)
    mine = tuple(_as_own(g, compared, numbers[compared]) for g in given if _gave(g, numbers.get(compared)))
    asked = max((n for n, m in enumerate(case.messages) if m.role == "user"), default=len(case.messages))
    return CaseView(
        anchor=anchor(case.id),
        case=case,
        before=case.messages[:asked],
        prompt=_text(case.prompt),
        reference=_text(case.reference) if case.reference is not None else None,
        expects=tuple(_expectation(case)),
        void=void,
        base=tuple(_grouped(base, None, numbers, notes)),
        shown=mine,
        others=tuple(g for g in given if not _gave(g, numbers.get(compared))),
        flip=_flip(base, [s for s in tuned if s.variant == compared], void),
    )


def _gave(given: Given, number: int | None) -> bool:
    return any(key.split(".")[0] == str(number) for key in given.by)


def _as_own(given: Given, compared: str, number: int) -> Given:
    own = [int(key.split(".")[1]) for key in given.by if key.split(".")[0] == str(number)]
    also = tuple(who for who in given.who if who != compared and not who.startswith(f"{compared} (seed"))
    return replace(given, own=_seeds(own) if compared not in given.who else "", also=also)


def _grouped(samples: Iterable[Sample], base: Sample | None, numbers: Mapping[str, int], notes: _Notes) -> list[Given]:
    """Equal answers with equal verdicts once: log-probabilities and repeats can tell equal texts apart."""
    groups: dict[tuple[object, ...], _Group] = {}
    for sample in samples:
        note, score = notes[sample.variant, sample.seed, sample.case], sample.score
        key = (sample.answer, sample.truncated, score.passed, score.checks, note)
        group = groups.setdefault(key, _Group(sample, note))
        group.who.setdefault(sample.variant, []).append(sample.seed)
    seeds: dict[str, int] = {}
    for group in groups.values():
        for name, own in group.who.items():
            seeds[name] = seeds.get(name, 0) + len(own)
    return [_given(group, base, numbers, seeds) for group in groups.values()]


def _given(group: _Group, base: Sample | None, numbers: Mapping[str, int], seeds: Mapping[str, int]) -> Given:
    sample, score = group.sample, group.sample.score
    same = base is not None and (base.answer, base.truncated) == (sample.answer, sample.truncated)
    known = same and base is not None and base.score.checks == score.checks
    return Given(
        text=Text("") if same else _text(sample.answer),
        same_as_base=same,
        truncated=sample.truncated,
        passed=None if score.value is None else score.passed,
        error=score.error,
        failed=() if known else tuple(check for check in score.checks if not check.passed),
        who=tuple(_who(name, own, seeds[name]) for name, own in group.who.items()),
        by=tuple(f"{numbers.get(name, 0)}.{seed}" for name, own in group.who.items() for seed in own),
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
        return Flip("void", "void")
    scored = [s for s in tuned if s.score.value is not None]
    if not base or base[0].score.value is None or not scored:
        return Flip("none", "not compared")
    passes, asked = sum(s.score.passed for s in scored), len(scored)
    if base[0].score.passed:
        return Flip("kept", "kept") if passes == asked else Flip("broken", "broken" + _part(asked - passes, asked))
    return Flip("fixed", "fixed" + _part(passes, asked)) if passes else Flip("failing", "still fails")


def _part(count: int, asked: int) -> str:
    return f" in {count} of {asked} seeds" if count < asked else ""


def _expectation(case: Case) -> Iterable[str]:
    for check in case.assertions:
        yield check.name if check.value is None else f"{check.name}: {_short(_value(check.value))}"


def _value(value: Any) -> str:
    """A list as people write one, not as Python does."""
    return " | ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(text: str) -> Text:
    return Text(text) if len(text) <= HEAD * 1.2 else Text(text[:HEAD], text[HEAD:])
