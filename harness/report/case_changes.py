"""The table of cases: how the verdict on each case changed under each variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import reducers
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Case, Split
from harness.report.formatting import anchor


@dataclass(frozen=True)
class CaseChange:
    """How the verdict on one case changed from the base model to a variant.

    `kind` is `kept` (both pass), `fixed`, `broken`, `failing` (both fail), or `none` (one of them has no score). If the
    seeds of the variant differ, `kind` holds for `count` of the `seeds`.
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
class CaseRow:
    """One row of the table: how a case changed under each variant, in the order of the variants."""

    anchor: str
    case: Case
    bases: tuple[str, ...]
    """Verdict on the answer of each base model: `pass`, `fail` or `none`. Each variant is compared with its own."""
    changes: tuple[CaseChange, ...]


def by_case_id(results: Results, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each case. Several repeats under one seed are combined into one sample."""
    by_case: dict[str, list[Sample]] = {}
    for sample in reducers.reduced(samples, results.run.suite.reducer):
        by_case.setdefault(sample.case, []).append(sample)
    return by_case


def case_rows(results: Results) -> tuple[CaseRow, ...]:
    """Return one row for each case that was used to choose the variant."""
    by_case = by_case_id(results, results.samples)
    return tuple(_row(results, case, by_case.get(case.id, [])) for case in results.run.suite.of(Split.MAIN))


def _row(results: Results, case: Case, samples: Sequence[Sample]) -> CaseRow:
    given: dict[str, list[Sample]] = {}
    for sample in samples:
        given.setdefault(sample.variant, []).append(sample)
    changes = tuple(
        case_change(given.get(results.base_of(variant).name, ()), given.get(variant.name, ()))
        for variant in results.variants
    )
    return CaseRow(
        anchor(case.id), case, tuple(verdict(given.get(base.name, ())) for base in results.every_base), changes
    )


def verdict(base: Sequence[Sample]) -> str:
    """Return the verdict on a base model's answer: `pass`, `fail` or `none`."""
    if not base or base[0].score.value is None:
        return "none"
    return "pass" if base[0].score.passed else "fail"


def case_change(base: Sequence[Sample], tuned: Sequence[Sample]) -> CaseChange:
    """Compare a variant's answers to a case with the base model's. `page.js` uses the same words."""
    scored = reducers.scored(tuned)
    if not base or base[0].score.value is None or not scored:
        return CaseChange("none")
    passes, asked = sum(s.score.passed for s in scored), len(scored)
    if base[0].score.passed:
        return CaseChange("kept") if passes == asked else CaseChange("broken", asked - passes, asked)
    return CaseChange("fixed", passes, asked) if passes else CaseChange("failing")
