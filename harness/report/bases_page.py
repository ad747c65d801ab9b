"""The page of several runs of one suite on different base models: which base, which settings, what each costs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis import statistics
from harness.analysis.next_trials import next_steps
from harness.core import wording
from harness.core.errors import UsageError
from harness.core.measurement import Phase
from harness.core.quantities import interval, points, quantity
from harness.core.run_results import Finding, Outcome, Results
from harness.core.suite import Role
from harness.report import formatting
from harness.report.charts import learned_lost
from harness.report.charts.drawing import Chart
from harness.report.charts.learned_lost import Mark
from harness.report.first_screen import FirstScreen, first_screen
from harness.report.headline import chosen, highest_pass_rate
from harness.report.kinds import JOINED, KindCell, of_variant, place
from harness.report.pass_rates import RoleScores, scores_by_role, shared_cases

VERDICTS = {
    Finding.CONFIRMED.value: "Held-out cases under fresh seeds show a gain, and a loss below the suite's margin.",
    Finding.NOT_CONFIRMED.value: "A variant was chosen, but nothing of this has been shown on held-out cases.",
    Finding.REFUTED.value: "Held-out cases under fresh seeds speak against the chosen variant.",
    "nothing chosen": "No variant is shown to learn and to keep enough. The figures are of the highest pass rate.",
    "random weights": "Only time and memory mean something.",
}
"""What each verdict on a run means."""


@dataclass(frozen=True)
class BaseRow:
    """One base model with its best variant."""

    number: int
    name: str
    """The model's name; if two runs have the same model, with the run's directory."""
    banner: str
    """What may not be concluded from this model; empty if there is nothing to say."""
    title: str
    """The verdict in short: a key of `VERDICTS`."""
    recommended: bool
    """Whether the page answers with this base."""
    variant: str
    """The chosen variant; empty if none was chosen."""
    first: FirstScreen
    """What the first screen of the run's own page says."""


@dataclass(frozen=True)
class KindLine:
    """One kind of cases: how many it has, and what the shown variant of each base did with them."""

    kind: str
    cases: int
    cells: tuple[KindCell, ...]


@dataclass(frozen=True)
class BasesPage:
    """Content of the page of several runs."""

    now: str
    suite: str
    answer: str
    reasons: tuple[str, ...]
    rows: tuple[BaseRow, ...]
    verdicts: tuple[tuple[str, str], ...]
    """The verdicts on the page, each with its meaning."""
    words: tuple[tuple[str, str], ...]
    """The words of the table, each with its meaning."""
    kinds: tuple[tuple[Role, tuple[KindLine, ...]], ...]
    joined: str
    """The first kind of which the name stands for several, such as `read-…`; empty if there is none."""
    chart: Chart | None
    runs: tuple[tuple[str, str], ...]
    """The directory of each run, and the command that made it."""


@dataclass(frozen=True)
class _Run:
    """A run with the variant that is shown, and this variant's scores on the objective."""

    root: Path
    results: Results
    name: str

    @property
    def shown(self) -> Outcome | None:
        wanted = self.results.choice.variant or highest_pass_rate(self.results)
        return next((v for v in self.results.variants if v.name == wanted), None)

    @property
    def verdict(self) -> str:
        if self.results.run.model.shape_only:
            return "random weights"
        if chosen(self.results) is None:
            return "nothing chosen"
        found = self.results.choice.confirmation
        return (found.finding if found else Finding.NOT_CONFIRMED).value

    @property
    def held_out(self) -> Outcome | None:
        """The shown variant on held-out cases, if it was confirmed or refuted there."""
        again = self.results.confirmed
        return again if again and self.shown and again.name == self.shown.name and again.rates else None

    @property
    def scores(self) -> RoleScores | None:
        samples = self.results.confirmed_samples if self.held_out else self.results.samples
        found = scores_by_role(self.results, samples)
        return found.get((self.shown.name, self.results.choice.objective)) if self.shown else None


def bases_page(runs: Sequence[tuple[Path, Results]], now: str) -> BasesPage:
    """Return the content of the page. `now` is the time of writing.

    Raises:
        UsageError: the runs do not ask the same cases.
    """
    _check(runs)
    names = [results.run.model.name for _, results in runs]
    found = [
        _Run(root, results, name if names.count(name) == 1 else f"{name} ({root.name})")
        for (root, results), name in zip(runs, names, strict=True)
    ]
    best = _best(found)
    answer, reasons = _answer(found, best)
    kinds = _kinds(found)
    rows = tuple(_row(number, run, recommended=run is best) for number, run in enumerate(found, 1))
    return BasesPage(
        now=now,
        suite=runs[0][1].run.suite.name,
        answer=answer,
        reasons=reasons,
        rows=rows,
        words=tuple({word: meaning for row in rows for word, meaning in row.first.words}.items()),
        verdicts=tuple((word, says) for word, says in VERDICTS.items() if any(run.verdict == word for run in found)),
        kinds=kinds,
        joined=next((line.kind for _, lines in kinds for line in lines if line.kind.endswith(JOINED)), ""),
        chart=_chart(found, best),
        runs=tuple((str(run.root), _command(run.results.run.provenance.command)) for run in found),
    )


def _check(runs: Sequence[tuple[Path, Results]]) -> None:
    (first_root, first), *others = runs
    for root, results in others:
        one, two = ({(c.id, c.role, c.split) for c in each.run.suite.cases} for each in (first, results))
        if one != two:
            case = min(one ^ two)[0]
            raise UsageError(
                f"{first_root} and {root} ask different cases ({case!r} is only in one of them, or has another role)",
                remedy="Run the same suite on each model, then report these runs.",
            )


# --- which base --------------------------------------------------------------------------------------------------


def _candidates(runs: Sequence[_Run]) -> list[_Run]:
    """Return the runs of which a variant was confirmed. A toy model counts only among toy models."""
    confirmed = [run for run in runs if run.verdict == Finding.CONFIRMED and run.scores and run.scores.cases]
    if all(run.results.run.model.toy for run in runs):
        return confirmed
    return [run for run in confirmed if not run.results.run.model.toy]


def _best(runs: Sequence[_Run]) -> _Run | None:
    """Return the base to use: of the confirmed ones, the one that passes most cases of the objective."""
    return max(_candidates(runs), key=lambda run: _mean(run.scores), default=None)


def _answer(runs: Sequence[_Run], best: _Run | None) -> tuple[str, tuple[str, ...]]:
    """Say which base to use, and why: what it passes, and how far it is from the others."""
    if all(run.results.run.model.shape_only for run in runs):
        return "Random weights show what fits, but not which base is better", ()
    if best is None:
        return "No base can be recommended: on none of them was a variant confirmed.", ()
    assert best.shown is not None
    confirmed, objective = _candidates(runs), runs[0].results.choice.objective
    toys = [run.name for run in runs if run.results.run.model.toy]
    reasons = [_why(best, confirmed, objective, without_toys=bool(toys) and not best.results.run.model.toy)]
    reasons += [_against(best, other, objective) for other in confirmed if other is not best]
    left_out = [run.name for run in runs if run not in confirmed and run.name not in toys]
    if left_out:
        reasons.append(f"Not considered, because nothing was confirmed on it: {wording.listed(left_out)}.")
    if toys:
        words = "is a toy model: it only shows" if len(toys) == 1 else "are toy models: they only show"
        reasons.append(f"{wording.listed(toys)} {words} how to read a report.")
    return f"{best.name}, with {best.shown.name}", tuple(reasons)


def _why(best: _Run, confirmed: Sequence[_Run], objective: Role, *, without_toys: bool) -> str:
    """Say what the recommended base passes, and among how many."""
    which = f"{'held-out ' if best.held_out else ''}{objective} cases"
    passed = f"{100 * _mean(best.scores):.0f}% of the {which} pass with these settings"
    it = "Apart from toy models, it" if without_toys else "It"
    if len(confirmed) == 1:
        return f"{it} is the only base on which a variant was confirmed: {passed}."
    return f"{it} passes most of the {len(confirmed)} bases on which a variant was confirmed: {passed}."


def _mean(scores: RoleScores | None) -> float:
    return float(scores.scores.mean()) if scores and scores.scores.size else 0.0


def _against(best: _Run, other: _Run, objective: Role) -> str:
    assert best.scores
    assert other.scores
    common = shared_cases((best.scores, other.scores))
    if not common:
        return f"{best.name} and {other.name} have no {objective} case in common."
    mine, theirs = best.scores.on(common), other.scores.on(common)
    moved = statistics.difference(theirs.scores, mine.scores, mine.groups)
    span = f"({interval(100 * moved.low, 100 * moved.high)} with 95% confidence)"
    size = f"{points(100 * abs(moved.value))} points {'more' if moved.value >= 0 else 'less'} {span}"
    if moved.low > 0:
        return f"On {objective} cases it passes more than {other.name}: {size}."
    return f"On {objective} cases it cannot be told apart from {other.name}: it passes {size}. {_cheaper(best, other)}"


def _cheaper(best: _Run, other: _Run) -> str:
    """Say what each of two bases costs, if both were measured alike."""
    costs = [run.shown.cost(Phase.TRAIN) if run.shown else None for run in (best, other)]
    kinds = {(cost.seconds.device, cost.seconds.basis) if cost else None for cost in costs}
    if None in kinds or len(kinds) > 1:
        return "Their costs were not measured alike, so they do not say which one is cheaper."
    first, second = (quantity(cost.seconds) for cost in costs if cost)
    if first == second:
        return f"Training alone takes {first} on both."
    return f"Training alone takes {first} on {best.name} and {second} on {other.name}: take the one that costs less."


# --- rows, kinds and chart ------------------------------------------------------------------------------------------


def _row(number: int, run: _Run, *, recommended: bool) -> BaseRow:
    results, best = run.results, chosen(run.results)
    return BaseRow(
        number=number,
        name=run.name,
        banner=formatting.banner(results.run.model),
        title=run.verdict,
        recommended=recommended,
        variant=best.name if best else "",
        first=first_screen(results, best, run.shown, next_steps(results)),
    )


def _kinds(runs: Sequence[_Run]) -> tuple[tuple[Role, tuple[KindLine, ...]], ...]:
    """Return the kinds of each role: what can be lost first, then the objective."""
    tables = [
        of_variant(run.results, run.shown) if run.shown and not run.results.run.model.shape_only else {} for run in runs
    ]
    known = list(dict.fromkeys(key for table in tables for key in table))
    none = KindCell(0.0, 0.0, 0.0, 0)
    lines = {
        key: KindLine(key[1], max(table.get(key, none).cases for table in tables), cells)
        for key in known
        if (cells := tuple(table.get(key, none) for table in tables))
    }
    roles = sorted(dict.fromkeys(role for role, _ in known), key=lambda role: place(runs[0].results, role))
    return tuple((role, tuple(line for (own, _), line in lines.items() if own is role)) for role in roles)


def _chart(runs: Sequence[_Run], best: _Run | None) -> Chart | None:
    """Draw what the best variant of each base passes, against what it lost."""
    marks = [mark for number, run in enumerate(runs, 1) if (mark := _mark(number, run, recommended=run is best))]
    return learned_lost.of_bases(marks, runs[0].results) if marks else None


def _mark(number: int, run: _Run, *, recommended: bool) -> Mark | None:
    own = run.held_out or run.shown
    loss, scores = own.loss if own else None, run.scores
    span = scores.span if scores else None
    if own is None or loss is None or loss.points is None or span is None:
        return None
    rate = 100 * _mean(scores)
    return Mark(
        number, run.name, rate, 100 * span.low, 100 * span.high, loss.points, loss.low, loss.high,
        "chosen" if recommended else "eligible" if run.verdict == Finding.CONFIRMED else "not eligible",
        bound=learned_lost.deciding_bound(run.results, own, held_out=bool(run.held_out)), at=(loss.points, rate),
    )  # fmt: skip


def _command(given: str) -> str:
    """Return the command of a run without its `--output`: the page names the run's directory beside it."""
    try:
        words = shlex.split(given)
    except ValueError:  # not a command: the file was edited
        return given
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if "--output" not in (before, word) and not word.startswith("--output=")
    ]
    return shlex.join(kept)
