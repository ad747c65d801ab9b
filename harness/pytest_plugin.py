"""A pytest plugin: with `pytest --harness-run RUN suites/`, every case of a suite is a test of a run's stored answers.

No model is trained or loaded. A case passes if the tuned model passes it under at least half of the seeds. The suite's
reducer combines repeats under one seed, and an answer without a score counts as failed. If the base model fails a
`retain` or `avoid` case too, its failure is expected (xfail). With `--harness-baseline`, a case fails only if it passed
under every seed in the baseline and fails under every seed now, and one more test, `gate`, compares the run with the
baseline as `harness gate` does.

pytest loads this plugin wherever the package is installed. Without `--harness-run`, it collects nothing and imports no
other module of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.core.regression import Decision, Flip
    from harness.core.run_results import Results
    from harness.core.scores import Rate, Sample, Score
    from harness.core.suite import Case, Suite

PASSING_SHARE = 0.5
"""Share of seeds under which a case must pass."""
SUITE_FILES = ("suite.yaml", "promptfooconfig.yaml")
"""Names of the files that are collected. In one folder, the first of them that is there is the suite."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options. Those about the suite mean the same as in `harness run`."""
    group = parser.getgroup("harness", "QLoRA harness: the cases of a suite as tests")
    group.addoption("--harness-run", metavar="RUN", help="Directory of a run. Each case of its suite becomes a test.")
    group.addoption("--harness-variant", metavar="NAME", help="Variant to test (default: the run's choice).")
    group.addoption("--harness-baseline", metavar="NAME", help="Compare the variant with this baseline.")
    group.addoption("--harness-root", metavar="DIR", help="Folder in which all files that the suite names must be.")
    group.addoption(
        "--harness-skip-unsupported",
        action="store_true",
        help="Ignore promptfoo features that the harness does not support.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the run and the baseline before collection, so that a mistake gives one error and not one for each case."""
    run = config.getoption("--harness-run")
    if not run:
        for name in ("--harness-variant", "--harness-baseline", "--harness-root", "--harness-skip-unsupported"):
            if config.getoption(name):
                raise pytest.UsageError(f"{name} needs --harness-run")
        return
    from harness.core.errors import HarnessError
    from harness.core.outside_text import visible

    try:
        config.stash[_RUN] = _read(
            Path(run), config.getoption("--harness-variant"), config.getoption("--harness-baseline")
        )
    except HarnessError as error:
        raise pytest.UsageError(visible(str(error))) from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """Collect a suite.yaml or promptfooconfig.yaml whose folder has the name of the run's suite."""
    run = parent.config.stash.get(_RUN, None)
    if run is None or file_path.name not in SUITE_FILES or file_path.parent.resolve().name != run.suite:
        return None
    suite = next(name for name in SUITE_FILES if (file_path.parent / name).exists())
    return SuiteFile.from_parent(parent, path=file_path) if file_path.name == suite else None


# --- the run and the baseline ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """The tested run and variant, and the gate's decision if there is a baseline."""

    suite: str
    variant: str
    results: Results
    decision: Decision | None
    root: Path
    """The run directory, which holds the verdicts of a judge."""
    answers: dict[str, list[Sample]] = field(default_factory=dict)
    """The variant's answers by case id."""
    base: dict[str, list[Sample]] = field(default_factory=dict)
    """The base model's answers by case id."""

    @cached_property
    def cases(self) -> dict[str, Case]:
        """The cases as the run asked them, by id."""
        return {case.id: case for case in self.results.run.suite.cases}


_RUN = pytest.StashKey[_Run]()


def _read(path: Path, variant: str | None, baseline: str | None) -> _Run:
    from harness.analysis.regression.gate import run_gate
    from harness.storage.runs import find_run

    store = find_run(path)
    results = store.results()
    name = _variant(results, variant)
    run = _Run(results.run.suite.name, name, results, run_gate(store, baseline) if baseline else None, store.root)
    base = results.base_beside(name).name
    for sample in (*results.samples, *results.confirmed_samples):
        answers = {name: run.answers, base: run.base}.get(sample.variant)
        if answers is not None:
            answers.setdefault(sample.case, []).append(sample)
    return run


def _variant(results: Results, requested: str | None) -> str:
    """Return the requested variant; without a request, the run's only variant or the one that the run chose."""
    from harness.core.errors import UsageError

    names = [outcome.name for outcome in results.variants]
    chosen = requested or (names[0] if len(names) == 1 else results.choice.variant)
    if chosen not in names:
        what = f"the run has no variant {requested!r}" if requested else "the run has several variants and chose none"
        raise UsageError(what, remedy=f"Name one with --harness-variant: {', '.join(names)}.")
    return chosen


# --- collection --------------------------------------------------------------------------------------------------


class SuiteFile(pytest.File):
    """The file of the tested suite: one test per case and, with a baseline, the test `gate`."""

    def collect(self) -> Iterator[pytest.Item]:
        from harness.core.errors import HarnessError
        from harness.core.outside_text import visible
        from harness.suites import load_suite

        run = self.config.stash[_RUN]
        try:
            root = self.config.getoption("--harness-root")
            suite = load_suite(
                self.path,
                skip_unsupported=self.config.getoption("--harness-skip-unsupported"),
                root=self.config.invocation_params.dir / root if root else None,
            )
        except HarnessError as error:
            raise self.CollectError(visible(str(error))) from None
        if run.decision is not None:
            yield GateItem.from_parent(self, name="gate")
        for case in suite.cases:
            yield CaseItem.from_parent(self, name=case.id, case=case, suite=suite)


class _FailedError(Exception):
    """Failure of a test, with the text to show."""


class _Item(pytest.Item):
    def repr_failure(  # type: ignore[override]
        self, excinfo: pytest.ExceptionInfo[BaseException], style: str | None = None
    ) -> object:
        """Return the failure's text without a traceback, because no code of the user has failed."""
        if isinstance(excinfo.value, _FailedError):
            from harness.core.outside_text import visible

            return visible(str(excinfo.value))
        return super().repr_failure(excinfo, style=style)  # type: ignore[arg-type]


class GateItem(_Item):
    """The test `gate`: it fails if the run regressed or is not comparable, and warns if it is inconclusive."""

    def runtest(self) -> None:
        from harness.analysis.regression import gate_output
        from harness.core.run_results import Verdict

        decision = self.config.stash[_RUN].decision
        if decision is None:
            raise ValueError("the gate needs a baseline")
        if decision.verdict in (Verdict.REGRESSED, Verdict.NOT_COMPARABLE):
            raise _FailedError(gate_output.text(decision))
        if decision.verdict is Verdict.INCONCLUSIVE:
            self.warn(pytest.PytestWarning(gate_output.text(decision)))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, "gate"


class CaseItem(_Item):
    """The test of one case, under all seeds of the variant."""

    def __init__(self, *, case: Case, suite: Suite, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.case, self.suite = case, suite

    def runtest(self) -> None:
        from harness.analysis import reducers
        from harness.core.scores import Rate
        from harness.scoring.judging import ONLY_JUDGED

        run = self.config.stash[_RUN]
        self._skip_without_answers(run)
        if flip := _lost_everywhere(run, self.case.id):
            raise _FailedError(_regression_text(flip))
        scored = [replace(sample, score=self._score(sample, run)) for sample in run.answers[self.case.id]]
        if all(sample.score.error == ONLY_JUDGED for sample in scored):
            pytest.skip(ONLY_JUDGED)
        by_seed = reducers.reduced(scored, self.suite.reducer)
        passed = sum(sample.score.passed for sample in by_seed)
        if passed >= PASSING_SHARE * len(by_seed):
            return
        if run.decision is not None:
            pytest.skip("it fails in the baseline as well, or differs between seeds: see the test `gate`")
        if _base_fails_too(self.case, run):
            pytest.xfail("the base model fails it too, so the tuned model has lost nothing")
        raise _FailedError(_failure_text(self.case, run, scored, Rate(passed, len(by_seed))))

    def _skip_without_answers(self, run: _Run) -> None:
        """Skip a case that is not in the run or has no answers."""
        case = self.case
        if changed := _changed_question(run, self.suite, case):
            pytest.skip(
                f"this run has no answers to the case as it is now ({changed}); repeat `harness run` with this suite, "
                "which repeats nothing that is unchanged, and pass the new run's directory to --harness-run"
            )
        if not run.answers.get(case.id):
            held_out = case.split.value == "confirm"
            pytest.skip("it is held out for the confirmation" if held_out else "no trial answered it")

    def _score(self, sample: Sample, run: _Run) -> Score:
        """Score an answer with the current suite, whose assertions may have changed since the run."""
        from harness.analysis.regression.run_comparison import scoring_rules

        old = run.cases[self.case.id]
        if scoring_rules(old) == scoring_rules(self.case):
            return sample.score
        from harness.analysis.opinions import known_opinions, scoring_of
        from harness.scoring import score

        return score(self.case, sample.answer, scoring_of(self.suite, known_opinions(self.suite, run.root)))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        place = self.case.place
        return self.path.parent / place.file, place.line - 1 if place.line else None, self.case.id


def _changed_question(run: _Run, suite: Suite, case: Case) -> str:
    """Write what changed since the run of all that determines the answers to a case; empty if nothing changed."""
    from harness.core.wording import listed
    from harness.storage.keys import question

    asked = run.results.run.suite
    if case.id not in run.cases:
        return "the case is new"
    old, new = question(asked, run.cases[case.id]), question(suite, case)
    names = {"messages": "prompt or system prompt"}
    changed = [names.get(name, name) for name in {**old, **new} if old.get(name) != new.get(name)]
    changed += ["training rows"] if asked.rows != suite.rows else []
    return f"changed: {listed(changed)}" if changed else ""


# --- texts -------------------------------------------------------------------------------------------------------


def _lost_everywhere(run: _Run, case: str) -> Flip | None:
    """Return the change of a case if it passed under every seed in the baseline and fails under every seed now."""
    variants = run.decision.comparison.variants if run.decision else ()
    flips = (flip for variant in variants if variant.name == run.variant for flip in variant.flips)
    return next((flip for flip in flips if flip.case == case and flip.lost and flip.everywhere), None)


def _regression_text(flip: Flip) -> str:
    from harness.analysis.regression.gate_output import LENGTH
    from harness.core.outside_text import one_line

    return "\n".join(
        [
            f"passed under all {flip.before.total} seeds of the baseline and fails under all {flip.after.total} now",
            f"prompt:   {one_line(flip.prompt, LENGTH)}",
            f"baseline: {one_line(flip.answer_before, LENGTH)}",
            f"tuned:    {one_line(flip.answer_after, LENGTH)}",
            f"fails:    {one_line(flip.reason, LENGTH)}",
        ]
    )


def _base_fails_too(case: Case, run: _Run) -> bool:
    """Return whether a case tests an ability that must be kept, and the base model fails it."""
    from harness.analysis.losses import GUARDED

    base = run.base.get(case.id, [])
    return case.role in GUARDED and bool(base) and not base[0].score.passed


def _failure_text(case: Case, run: _Run, samples: Iterable[Sample], seeds: Rate) -> str:
    """Return the prompt, the base model's answer, and each distinct failing answer with its failing assertions."""
    from harness.analysis.regression.gate_output import LENGTH
    from harness.core.outside_text import one_line

    failing: dict[str, tuple[dict[int, None], Score]] = {}
    for sample in samples:
        if not sample.score.passed:
            failing.setdefault(sample.answer.text, ({}, sample.score))[0][sample.seed] = None
    base = run.base.get(case.id, [])
    passes = base and base[0].score.passed
    first = f"{one_line(run.variant, LENGTH)} passes under {seeds.passed} of {seeds.total} seeds ({case.role})"
    lines = [first, f"prompt: {one_line(case.prompt, LENGTH)}"]
    lines += (
        [f"base:   {one_line(base[0].answer.text, LENGTH)}  ({'passes' if passes else 'fails too'})"] if base else []
    )
    for answer, (under, score) in failing.items():
        lines.append(f"tuned:  {one_line(answer, LENGTH)}  (seed {', '.join(map(str, under))})")
        why = [f"{check.assertion}: {check.reason}" for check in score.checks if not check.passed] or [score.error]
        lines += [f"  fails {one_line(reason, LENGTH)}" for reason in why]
    return "\n".join(lines)
