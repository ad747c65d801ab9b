"""`pytest --harness-run RUN suites/`: every case of a suite is a test, judged by the answers that a run has stored.

Nothing is trained or asked. A case passes when its tuned answer does, under at least half of the seeds; with
`--harness-baseline` a case fails only if it passed under every seed there and fails under every seed now, and one more
test, `gate`, holds the variant against the baseline as `harness gate` does. Without the option this adds nothing to a
pytest run, and imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.core.names import BASE

if TYPE_CHECKING:
    from harness.core.regression import Decision, Flip
    from harness.core.results import Results
    from harness.core.scores import Sample, Score
    from harness.core.suite import Case, Suite

HALF = 0.5
SUITE_FILE = "suite.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness", "QLoRA harness: the cases of a suite as tests")
    group.addoption(
        "--harness-run", metavar="RUN", help="A run's directory: judge its answers to the suites collected."
    )
    group.addoption("--harness-variant", metavar="NAME", help="Whose answers; by default those of the run's choice.")
    group.addoption("--harness-baseline", metavar="NAME", help="Hold the variant against this baseline.")


def pytest_configure(config: pytest.Config) -> None:
    """Read both sides at once, so that a mistake is one error and not one for each case."""
    run = config.getoption("--harness-run")
    if not run:
        for name in ("--harness-variant", "--harness-baseline"):
            if config.getoption(name):
                raise pytest.UsageError(f"{name} needs --harness-run")
        return
    from harness.core.errors import HarnessError

    try:
        config.stash[_RUN] = _read(
            Path(run), config.getoption("--harness-variant"), config.getoption("--harness-baseline")
        )
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """The suite that the run is of, by its folder's name."""
    run = parent.config.stash.get(_RUN, None)
    if run is None or file_path.name != SUITE_FILE or file_path.parent.resolve().name != run.suite:
        return None
    return SuiteFile.from_parent(parent, path=file_path)


# --- what was read -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """A run, whose answers are judged, and the decision on it where there is a baseline."""

    suite: str
    variant: str
    results: Results
    decision: Decision | None
    answers: dict[str, list[Sample]] = field(default_factory=dict)
    base: dict[str, list[Sample]] = field(default_factory=dict)


_RUN = pytest.StashKey[_Run]()


def _read(path: Path, variant: str | None, baseline: str | None) -> _Run:
    from harness.analysis.regression.gate import run_gate
    from harness.storage.runs import find_run

    store = find_run(path)
    results = store.results()
    name = _variant(results, variant)
    found = _Run(results.run.suite.name, name, results, run_gate(store, baseline) if baseline else None)
    for sample in (*results.samples, *results.confirmed_samples):
        side = {name: found.answers, BASE: found.base}.get(sample.variant)
        if side is not None:
            side.setdefault(sample.case, []).append(sample)
    return found


def _variant(results: Results, asked: str | None) -> str:
    from harness.core.errors import UsageError

    names = [outcome.name for outcome in results.variants]
    chosen = asked or (names[0] if len(names) == 1 else results.choice.variant)
    if chosen not in names:
        what = f"the run has no variant {asked!r}" if asked else "the run has several variants and chose none"
        raise UsageError(what, remedy=f"Name one with --harness-variant: {', '.join(names)}.")
    return chosen


# --- collection --------------------------------------------------------------------------------------------------


class SuiteFile(pytest.File):
    """A suite's file: its cases, and `gate` where there is a baseline."""

    def collect(self) -> Iterator[pytest.Item]:
        from harness.core.errors import HarnessError
        from harness.suites import load_suite

        run = self.config.stash[_RUN]
        try:
            suite = load_suite(self.path.parent)
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        if run.decision is not None:
            yield GateItem.from_parent(self, name="gate")
        for case in suite.cases:
            yield CaseItem.from_parent(self, name=case.id, case=case, suite=suite)


class _FailedError(Exception):
    """Carries what is to be read where a test failed."""


class _Item(pytest.Item):
    def repr_failure(  # type: ignore[override]
        self, excinfo: pytest.ExceptionInfo[BaseException], style: str | None = None
    ) -> object:
        """What was found, without a traceback: no code of the reader's has failed."""
        if isinstance(excinfo.value, _FailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style=style)  # type: ignore[arg-type]


class GateItem(_Item):
    """The verdict on the run; a doubtful one is a warning."""

    def runtest(self) -> None:
        from harness.analysis.regression import gate_output
        from harness.core.results import Verdict

        decision = self.config.stash[_RUN].decision
        if decision is None:
            raise ValueError("there is no gate without a baseline")
        if decision.verdict in (Verdict.REGRESSED, Verdict.NOT_COMPARABLE):
            raise _FailedError(gate_output.text(decision))
        if decision.verdict is Verdict.INCONCLUSIVE:
            self.warn(pytest.PytestWarning(gate_output.text(decision)))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, "gate"


class CaseItem(_Item):
    """One case, under all seeds of the variant."""

    def __init__(self, *, case: Case, suite: Suite, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.case, self.suite = case, suite

    def runtest(self) -> None:
        run = self.config.stash[_RUN]
        self._skip_unless_asked(run)
        if flip := _lost_everywhere(run, self.case.id):
            raise _FailedError(_regressed(flip))
        marks = [(sample, self._judged(sample, run)) for sample in run.answers[self.case.id]]
        passed = sum(score.passed for _, score in marks)
        if passed >= HALF * len(marks):
            return
        if run.decision is not None:
            pytest.skip("fails in the baseline as well, or within the draw of the seeds: the gate decides")
        raise _FailedError(_told(self.case, run, marks, passed))

    def _skip_unless_asked(self, run: _Run) -> None:
        case = self.case
        asked = {old.id: old for old in run.results.run.suite.cases}.get(case.id)
        if asked is None or asked.messages != case.messages:
            pytest.skip("this run has not asked it; `harness run` again asks only what is new")
        if not run.answers.get(case.id):
            pytest.skip("it is kept back to confirm" if case.split.value == "confirm" else "no trial answered it")
        if case.id in run.results.void:
            pytest.skip(run.results.void[case.id])

    def _judged(self, sample: Sample, run: _Run) -> Score:
        """By the suite as it is now, which may assert otherwise than when the run was made."""
        old = next(case for case in run.results.run.suite.cases if case.id == self.case.id)
        if (old.assertions, old.threshold) == (self.case.assertions, self.case.threshold):
            return sample.score
        from harness.scoring import Scoring, score

        return score(self.case, sample.answer, Scoring(Path(self.suite.folder)))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.case.line - 1 if self.case.line else None, self.case.id


# --- words -------------------------------------------------------------------------------------------------------


def _lost_everywhere(run: _Run, case: str) -> Flip | None:
    variants = run.decision.comparison.variants if run.decision else ()
    flips = (flip for variant in variants if variant.name == run.variant for flip in variant.flips)
    return next((flip for flip in flips if flip.case == case and flip.lost and flip.everywhere), None)


def _regressed(flip: Flip) -> str:
    from harness.analysis.regression.gate_output import plain

    return "\n".join(
        [
            f"passed under all {flip.before.total} seeds of the baseline and fails under all {flip.after.total} now",
            f"prompt:   {plain(flip.prompt)}",
            f"baseline: {plain(flip.answer_before)}",
            f"tuned:    {plain(flip.answer_after)}",
            f"fails:    {plain(flip.reason)}",
        ]
    )


def _told(case: Case, run: _Run, marks: Iterable[tuple[Sample, Score]], passed: int) -> str:
    """Prompt, what the base said, and each answer that failed, once, with the assertions that it fails."""
    from harness.analysis.regression.gate_output import plain

    total = 0
    failing: dict[str, tuple[list[int], Score]] = {}
    for sample, score in marks:
        total += 1
        if not score.passed:
            failing.setdefault(sample.answer.text, ([], score))[0].append(sample.seed)
    base = run.base.get(case.id, [])
    lines = [f"{run.variant} passes under {passed} of {total} seeds ({case.role})", f"prompt: {plain(case.prompt)}"]
    lines += [f"base:   {plain(base[0].answer.text)}"] if base else []
    for answer, (seeds, score) in failing.items():
        lines.append(f"tuned:  {plain(answer)}  (seed {', '.join(map(str, seeds))})")
        why = [f"{check.assertion}: {check.reason}" for check in score.checks if not check.passed] or [score.error]
        lines += [f"  fails {plain(reason)}" for reason in why]
    return "\n".join(lines)
