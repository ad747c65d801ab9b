"""Find cases that do not distinguish models: the base model and every variant pass them, or all of them fail."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import reducers
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.core.wording import listed, plural

SHOWN = 3
"""Number of cases that a sentence names. Further ones are only counted."""


@dataclass(frozen=True)
class ConstantCases:
    """Ids of the main-split cases that every answer of a run passes, and of those that every answer fails."""

    asked: int
    """Number of main-split cases with an answer of the base model and of a variant."""
    passed: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The cases in words, in the order of the suite; empty if every case distinguishes two models."""
        parts = [
            f"{plural(len(ids), 'case')} of {self.asked} {verb} ({listed(ids, SHOWN)})"
            for ids, verb in ((self.passed, "passed"), (self.failed, "failed"))
            if ids
        ]
        if not parts:
            return ""
        return f"Same verdict for the base model and every variant under every seed: {'; '.join(parts)}."


def constant_cases(results: Results) -> ConstantCases:
    """Return the cases on which the base model and all variants agree under all seeds.

    An answer without a score is ignored. A case without a scored answer of the base model, or of any variant, is
    neither passed nor failed.
    """
    verdicts: dict[str, dict[bool, list[bool]]] = {}
    names = {variant.name for variant in results.variants}
    for sample in reducers.scored(reducers.reduced(results.samples, results.run.suite.reducer)):
        verdicts.setdefault(sample.case, {}).setdefault(sample.variant in names, []).append(sample.score.passed)
    compared = {
        case.id: [passed for own in verdicts[case.id].values() for passed in own]
        for case in results.run.suite.of(Split.MAIN)
        if len(verdicts.get(case.id, ())) == len((True, False))
    }
    return ConstantCases(len(compared), _only(compared, True), _only(compared, False))


def _only(compared: dict[str, list[bool]], verdict: bool) -> tuple[str, ...]:
    return tuple(case for case, found in compared.items() if set(found) == {verdict})
