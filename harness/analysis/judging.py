"""What a judge said about the answers of a run, and how far it can be trusted.

A judge is a noisy instrument. Two figures measure it: how often two of its verdicts on the same answer differ, and how
often it agrees with the plain assertions of the same case. From the first follows what its contradictions alone do to
the difference of two pass rates (Miller, arXiv 2411.00640, calls this part the conditional variance).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis import statistics
from harness.analysis.score_table import ScoreTable, pair, score_table
from harness.core.answers import Answer
from harness.core.hashing import digest
from harness.core.judges import REPEATED, JudgedRate, Judging, Share
from harness.core.run_results import Results
from harness.core.scores import Sample, Score
from harness.core.suite import Case, Role, Suite
from harness.scoring import Need, Scoring, is_only_judged, judged, needs

LEVEL = 0.95
_Verdicts = dict[tuple[str, str], Score]
"""Case and text of an answer to the judge's verdict on it."""


def has_score(suite: Suite, case: Case) -> bool:
    """Whether answers to a case have a score: not if only a judge can judge them, and its verdicts do not decide."""
    return (suite.judge is not None and suite.judge.decides) or not is_only_judged(case)


def repeated(asked: Iterable[tuple[Case, Answer]]) -> list[tuple[Case, Answer]]:
    """Return the answers about which a judge is asked again: a sample that does not depend on their order."""
    some = [(case, answer) for case, answer in asked if needs(case.assertions, Need.JUDGE)]
    return sorted(some, key=lambda each: digest([each[0].id, each[1].text.strip()]))[:REPEATED]


def judging(results: Results, scoring: Scoring, asked: int = 0) -> Judging | None:
    """Summarise the judge's verdicts; None if there is no judge, or nothing to judge.

    `scoring` holds the judge's replies, and `asked` is how many of them are new.
    """
    suite = results.run.suite
    cases = {case.id: case for case in suite.cases if needs(case.assertions, Need.JUDGE)}
    if suite.judge is None or not suite.judge.model or not cases or results.run.model.shape_only:
        return None
    samples = [sample for sample in (*results.samples, *results.confirmed_samples) if sample.case in cases]
    answers = {(sample.case, sample.answer.text.strip()): sample.answer for sample in samples}
    verdicts = {key: judged(cases[key[0]], answer, scoring) for key, answer in answers.items()}
    contradictions = _contradictions(suite, [(cases[case], answer) for (case, _), answer in answers.items()], scoring)
    used = [scoring.opinions.replies[key] for key in scoring.opinions.used if key in scoring.opinions.replies]
    again = _asked_again(suite, [(cases[case], answer) for (case, _), answer in answers.items()], scoring)
    return Judging(
        judge=suite.judge,
        questions=len(used) - again,
        again=again,
        asked=asked,
        tokens_read=sum(reply.tokens_read for reply in used),
        tokens_written=sum(reply.tokens_written for reply in used),
        rates=tuple(_rates(results, cases, verdicts, contradictions)),
        contradictions=contradictions,
        agreement=_agreement(samples, cases, verdicts),
        absent=Counter(score.error for score in verdicts.values() if score.value is None),
    )


# --- rates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """The answers of one variant, scored by the judge alone."""

    name: str
    samples: tuple[Sample, ...]
    table: ScoreTable


def _rates(
    results: Results, cases: Mapping[str, Case], verdicts: _Verdicts, contradictions: Share | None
) -> Iterable[JudgedRate]:
    suite, names = results.run.suite, [row.name for row in (*results.every_base, *results.variants)]
    scored: dict[str, list[Sample]] = {name: [] for name in names}
    for sample in results.samples:
        if sample.case in cases:
            score = verdicts[sample.case, sample.answer.text.strip()]
            scored.setdefault(sample.variant, []).append(replace(sample, score=score))
    judged_by = {name: _Judged(name, tuple(own), score_table(own, suite.reducer)) for name, own in scored.items()}
    for role in Role:
        own = [case for case in cases.values() if case.role is role]
        for name in names if own else ():
            if judged_by[name].samples:
                variant = next((row for row in results.variants if row.name == name), None)
                base = judged_by[results.base_of(variant).name] if variant else None
                yield _rate(judged_by[name], base, role, own, contradictions)


def _rate(
    own: _Judged, base: _Judged | None, role: Role, cases: Sequence[Case], contradictions: Share | None
) -> JudgedRate:
    wanted = {case.id for case in cases}
    samples = [sample for sample in own.samples if sample.case in wanted]
    rate = own.table.rate(wanted)
    found = JudgedRate(own.name, role, rate.passed, rate.total, sum(s.score.value is None for s in samples))
    alone = pair(cases, own.table, own.table)
    if alone:
        interval = statistics.rate(alone.after, alone.groups)
        found = replace(found, low=interval.low, high=interval.high)
    both = pair(cases, base.table, own.table) if base and base is not own else None
    if both is None or base is None:
        return found
    change = statistics.difference(both.before, both.after, both.groups)
    noise = None if contradictions is None else 100 * _noise(own.samples, base.samples, wanted, contradictions.high)
    return replace(
        found, points=100 * change.value, points_low=100 * change.low, points_high=100 * change.high, noise=noise
    )


def _noise(own: Sequence[Sample], base: Sequence[Sample], cases: set[str], contradictions: float) -> float:
    """Return the 95% limit of what the judge's contradictions do to the difference of two pass rates.

    Two verdicts on the same answer differ with a chance of d, so that a verdict has a variance of d / 2. Equal answers
    to a case have the same stored verdict, which cancels as far as both variants give them.
    """
    weights: Counter[tuple[str, str]] = Counter()
    for samples, sign in ((own, 1), (base, -1)):
        counted = [sample for sample in samples if sample.case in cases and sample.score.value is not None]
        per_case = Counter(sample.case for sample in counted)
        for sample in counted:
            weights[sample.case, sample.answer.text.strip()] += sign / (len(per_case) * per_case[sample.case])  # type: ignore[assignment]
    return statistics.normal(1 - (1 - LEVEL) / 2) * math.sqrt(contradictions / 2 * sum(w * w for w in weights.values()))


# --- the judge itself --------------------------------------------------------------------------------------------


def _asked_again(suite: Suite, asked: Sequence[tuple[Case, Answer]], scoring: Scoring) -> int:
    """Return the number of replies to questions that were asked again."""
    before = set(scoring.opinions.used)
    fresh = type(scoring.opinions)(named=True)
    fresh.replies = scoring.opinions.replies
    for case, answer in repeated(asked):
        for repeat in range(1, suite.judge.repeats if suite.judge else 1):
            judged(case, answer, replace(scoring, opinions=fresh, repeat=repeat))
    return len([key for key in fresh.used if key in fresh.replies and key in before])


def _contradictions(suite: Suite, asked: Sequence[tuple[Case, Answer]], scoring: Scoring) -> Share | None:
    """Estimate the chance that two verdicts on the same answer differ, from the answers that were judged repeatedly."""
    repeats = suite.judge.repeats if suite.judge else 1
    chances = []
    for case, answer in repeated(asked):
        scores = [judged(case, answer, replace(scoring, repeat=repeat)) for repeat in range(repeats)]
        verdicts = [score.passed for score in scores if score.value is not None]
        if len(verdicts) > 1:
            share = sum(verdicts) / len(verdicts)
            chances.append(2 * share * (1 - share) * len(verdicts) / (len(verdicts) - 1))
    return _share(chances) if chances else None


def _agreement(samples: Sequence[Sample], cases: Mapping[str, Case], verdicts: _Verdicts) -> Share | None:
    """Return how often the judge and the plain assertions of a case agree on an answer. Each answer counts once."""
    found: dict[str, dict[str, float]] = {}
    for sample in samples:
        plain = _plainly(cases[sample.case], sample)
        score = verdicts[sample.case, sample.answer.text.strip()]
        if plain is not None and score.value is not None:
            found.setdefault(sample.case, {})[sample.answer.text.strip()] = float(plain is score.passed)
    observed = [(value, case) for case, own in found.items() for value in own.values()]
    return _share([value for value, _ in observed], [case for _, case in observed]) if observed else None


def _plainly(case: Case, sample: Sample) -> bool | None:
    """Return whether an answer passes all plain assertions of a case that count; None if it has none."""
    checks = [
        check
        for assertion, check in zip(case.assertions, sample.score.checks, strict=False)
        if assertion.weight and not check.judged
    ]
    if not checks or (sample.score.value is None and any(check.score is None for check in checks)):
        return None
    return all(check.passed for check in checks)


def _share(values: Sequence[float], clusters: Sequence[str] | None = None) -> Share:
    """Return a mean with its 95% interval. Observations of one case are a cluster: a judge can misread a whole case."""
    found = statistics.rate(np.array([values]), clusters)
    return Share(found.value, found.low, found.high, len(values))
