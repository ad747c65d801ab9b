"""What to try next: the few further trials that a run's results speak for, and changes of the suite.

Each rule below reads one pattern in the results and proposes at most two rows for the next grid. What the grid of the
run contains already is never proposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis import losses, selection
from harness.analysis.aggregate import objective_tables
from harness.analysis.nothing_learned import Cause, NothingLearned, nothing_learned, share
from harness.analysis.score_table import ScoreTable, score_tables
from harness.analysis.suite_changes import suite_changes
from harness.core.rehearsal import fitting
from harness.core.run_results import Loss, LossVerdict, Outcome, Results
from harness.core.settings import Settings
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.core.variant_names import differing, label

MOST = 4
"""Largest number of trials that are proposed."""
MUCH = 0.5
"""Share of the margin above which a net loss is worth reducing. To show a smaller one, more cases suffice."""
REHEARSAL_FACTOR = 2
"""Rehearsal begins with this number of rows per training row, and is then multiplied by it."""
MOST_REHEARSAL = 200
"""Largest number of rehearsal rows that is proposed if the run has none, so that their number is not known: about half
of the pool's prompts, since some answers are left out."""
RATE_FACTOR = 3.0
"""Factor to a learning rate outside of those that were tried."""
LEAST_GAP = 1.5
"""Two learning rates are worth a third one between them if the higher is at least this multiple of the lower."""
NEARLY_ALL = 0.95
"""Pass rate on the objective above which a higher learning rate has nothing to gain."""


@dataclass(frozen=True)
class NextTrial:
    """A variant that is worth a try: its name, complete settings, and the reason in a sentence."""

    name: str
    settings: Settings
    reason: str


@dataclass(frozen=True)
class NextSteps:
    """What to try next. Everything is empty if the results speak for nothing."""

    trials: tuple[NextTrial, ...] = ()
    suite: tuple[str, ...] = ()
    """Changes of the suite, as sentences."""
    nothing: NothingLearned | None = None
    """Why no variant learned, if none did."""

    @property
    def any(self) -> bool:
        return bool(self.trials or self.suite or self.nothing)


def next_steps(results: Results, most_rehearsal: int = MOST_REHEARSAL) -> NextSteps:
    """Return what to try after a run: at most four trials, the most promising first.

    `most_rehearsal` is the largest number of rehearsal rows to propose if the run has none.

    If no variant learned, there are no trials unless the training was too short, because other settings would not help.
    Nothing is proposed for a model with random weights, whose answers mean nothing, and before all trials have ended.
    """
    if results.run.model.shape_only or unfinished(results):
        return NextSteps()
    run = _Run.of(results, most_rehearsal)
    nothing = nothing_learned(results, run.finished)
    if nothing and nothing.cause is not Cause.TRAINING:
        longer = suite_changes(results, None) if nothing.cause is Cause.UNKNOWN else ()
        return NextSteps(suite=longer, nothing=nothing)
    rules = (_more_training(run),) if nothing else (_rehearsal(run), _between(run), _fewer_epochs(run), _outside(run))
    return NextSteps(_named(run, rules), suite_changes(results, run.nearest), nothing)


def unfinished(results: Results) -> bool:
    """Return whether some trials of a run have not been run yet, so that the results may still change."""
    return any(Status.CANCELLED in variant.statuses for variant in results.variants)


@dataclass(frozen=True)
class _Proposal:
    settings: Settings
    reason: str


@dataclass(frozen=True)
class _Run:
    """The parts of a run's results that the rules read."""

    results: Results
    objective: Role
    finished: tuple[Outcome, ...]
    """The grid's variants that finished under every seed."""
    learned: tuple[Outcome, ...]
    """Those that pass more cases of the objective than their base model."""
    tables: Mapping[str, ScoreTable]
    """Each variant's scores on the objective, by name."""
    most_rehearsal: int

    @classmethod
    def of(cls, results: Results, most_rehearsal: int) -> _Run:
        objective = results.choice.objective
        finished = tuple(v for v in results.variants if v.settings and _finished(v))
        learned = tuple(v for v in finished if share(v, objective) > share(results.base_of(v), objective))
        scores = score_tables(results.samples, results.run.suite.reducer)
        return cls(
            results,
            objective,
            finished,
            learned,
            objective_tables(results.run.suite, objective, scores),
            most_rehearsal,
        )

    @property
    def tried(self) -> tuple[Settings, ...]:
        """The settings of all variants of the grid, also of those that did not finish."""
        return tuple(variant.settings for variant in self.results.run.plan.variants)

    @property
    def margin(self) -> float:
        return self.results.run.suite.margin

    @property
    def best(self) -> Outcome | None:
        """The variant that passes most cases of the objective; of several, the one that loses least."""
        return max(self.learned, key=lambda v: (share(v, self.objective), -_lost(v)), default=None)

    @property
    def nearest(self) -> Outcome | None:
        """The chosen variant, or the one that loses least of those within one standard error of the best."""
        chosen = next((v for v in self.finished if v.name == self.results.choice.variant), None)
        return chosen or self.gentlest

    @property
    def gentlest(self) -> Outcome | None:
        """The variant that loses least of those whose pass rate is within one standard error of the best one's."""
        best, suite = self.best, self.results.run.suite
        if best is None:
            return None
        close = [v for v in self.learned if selection.behind(suite, self.tables, best, v, self.objective) is not None]
        return min(close, key=_lost)

    def forgets(self, variant: Outcome) -> bool:
        """Return whether a variant loses so much that it needs another training, rather than more cases to show less.

        The loss on the held-out cases counts, too, if the confirmation tested this variant.
        """
        return any(self._is_much(loss) for loss in (variant.loss, self._held_out_loss(variant)) if loss)

    def _held_out_loss(self, variant: Outcome) -> Loss | None:
        confirmed = self.results.confirmed
        return confirmed.loss if confirmed and confirmed.name == variant.name else None

    def _is_much(self, loss: Loss) -> bool:
        return loss.verdict is not LossVerdict.KEEPS and (loss.points or 0.0) > MUCH * self.margin

    def differing_only_in(self, setting: str, of: Settings) -> list[Settings]:
        """Return the settings in the grid that equal `of` except for one setting, in ascending order, with `of`."""
        same = {each for each in self.tried if replace(each, **{setting: getattr(of, setting)}) == of}
        return sorted({*same, of}, key=lambda each: float(getattr(each, setting)))

    def outcome(self, settings: Settings) -> Outcome | None:
        return next((v for v in self.finished if v.settings == settings), None)

    def seen(self, variant: Outcome) -> str:
        """Return what a variant passes and loses, such as `passes 77% of generalise cases, with 12 points ... lost`."""
        passed = f"passes {100 * share(variant, self.objective):.0f}% of the {self.objective} cases"
        again = self._held_out_loss(variant)
        held_out = f" ({losses.seen(again)} on held-out cases)" if again else ""
        return f"{passed}, with {losses.seen(variant.loss)}{held_out}" if variant.loss else passed


def _finished(variant: Outcome) -> bool:
    return bool(variant.statuses) and all(status is Status.SUCCEEDED for status in variant.statuses)


def _lost(variant: Outcome) -> float:
    return variant.loss.points if variant.loss and variant.loss.points is not None else 0.0


def _settings(variant: Outcome) -> Settings:
    assert variant.settings is not None  # `_Run.finished` has only variants with settings
    return variant.settings


def _distinct(*variants: Outcome | None) -> list[Outcome]:
    return list({variant.name: variant for variant in variants if variant}.values())


def _named(run: _Run, rules: Sequence[Iterable[_Proposal]]) -> tuple[NextTrial, ...]:
    """Return the first proposals that the grid does not contain, named after the settings in which all of them differ.

    These names are unique, because different settings differ in at least one of them.
    """
    found: dict[Settings, str] = {}
    for proposal in (each for rule in rules for each in rule):
        if proposal.settings not in run.tried:
            found.setdefault(proposal.settings, proposal.reason)
    chosen = dict(list(found.items())[:MOST])
    names = differing([*run.tried, *chosen])
    return tuple(NextTrial(label(settings, names), settings, reason) for settings, reason in chosen.items())


# --- rules -------------------------------------------------------------------------------------------------------


def _rehearsal(run: _Run) -> Iterator[_Proposal]:
    """Propose rehearsal, or more of it, for good variants that forget much."""
    for variant in _distinct(run.gentlest, run.best):
        *_, most = run.differing_only_in("rehearsal", _settings(variant))
        tried = run.outcome(most)
        if tried is None or not run.forgets(tried):
            continue
        had = most.rehearsal
        rows = min(_available(run, most), REHEARSAL_FACTOR * (had or len(run.results.run.suite.examples)))
        if rows > had:
            more = f"more rehearsal than {had} rows" if had else "rehearsal: rows with the base model's own answers"
            yield _Proposal(
                replace(most, rehearsal=rows),
                f"{tried.name} {run.seen(tried)}. Try {more}, so that it forgets less.",
            )


def _available(run: _Run, settings: Settings) -> int:
    """Return how many rehearsal rows a variant can have: those of the run, else as many as may be proposed."""
    rehearsal = run.results.run.rehearsal
    found = rehearsal.of(settings.quantization) if rehearsal else None
    return len(fitting(found.rows, settings.max_length)) if found else run.most_rehearsal


def _between(run: _Run) -> Iterator[_Proposal]:
    """Propose the rate between two neighbouring ones, if the higher learns more and only the lower loses little."""
    pairs = []
    for upper in run.learned:
        rates = run.differing_only_in("learning_rate", _settings(upper))
        place = rates.index(_settings(upper))
        lower = run.outcome(rates[place - 1]) if place else None
        if lower is None or not _lost(lower) <= run.margin < _lost(upper):
            continue
        gap = _settings(upper).learning_rate / _settings(lower).learning_rate
        if gap >= LEAST_GAP and share(upper, run.objective) > share(lower, run.objective):
            pairs.append((lower, upper))
    for lower, upper in sorted(pairs, key=lambda pair: (-share(pair[1], run.objective), _lost(pair[1])))[:1]:
        rate = _rounded(math.sqrt(_settings(lower).learning_rate * _settings(upper).learning_rate))
        yield _Proposal(
            replace(_settings(lower), learning_rate=rate),
            f"{lower.name} {run.seen(lower)}; {upper.name} {run.seen(upper)}. The margin of {run.margin:g} points lies "
            "between the two, so try a learning rate between theirs.",
        )


def _fewer_epochs(run: _Run) -> Iterator[_Proposal]:
    """Propose fewer epochs where the timeline shows that learning had ended."""
    for variant in _distinct(run.nearest, run.best):
        found = next((each for each in run.results.timelines if each.variant == variant.name), None)
        if found is None or found.enough is None or found.enough >= _settings(variant).epochs:
            continue
        yield _Proposal(
            replace(_settings(variant), epochs=float(found.enough)),
            f"After epoch {found.enough:g} of {_settings(variant).epochs:g}, {variant.name} was within one standard "
            "error of its best epoch. Fewer epochs cost less.",
        )
        return


def _outside(run: _Run) -> Iterator[_Proposal]:
    """Propose a rate outside of those that were tried, if the best variant has the highest or the lowest of them."""
    best = run.gentlest
    if best is None:
        return
    own = _settings(best)
    rates = run.differing_only_in("learning_rate", own)
    if run.forgets(best) and own == rates[0]:
        yield _Proposal(
            replace(own, learning_rate=_rounded(own.learning_rate / RATE_FACTOR)),
            f"{best.name} {run.seen(best)}, and has the lowest learning rate of its kind. A lower one forgets less.",
        )
    elif not run.forgets(best) and own == rates[-1] and len(rates) > 1 and share(best, run.objective) < NEARLY_ALL:
        yield _Proposal(
            replace(own, learning_rate=_rounded(own.learning_rate * RATE_FACTOR)),
            f"{best.name} {run.seen(best)}, and has the highest learning rate of its kind. A higher one may learn "
            "more.",
        )


def _more_training(run: _Run) -> Iterator[_Proposal]:
    """Propose a higher learning rate, and more epochs, if the training loss hardly fell under any variant."""
    best = max(run.finished, key=lambda v: (_settings(v).learning_rate, _settings(v).epochs), default=None)
    if best is None:
        return
    own = _settings(best)
    why = f"{best.name} has the highest learning rate of the grid, and its training loss hardly fell."
    higher = _rounded(own.learning_rate * RATE_FACTOR)
    yield _Proposal(replace(own, learning_rate=higher), f"{why} Try a higher one.")
    yield _Proposal(replace(own, epochs=2 * own.epochs), f"{why} Try twice the epochs.")


def _rounded(rate: float) -> float:
    """Return a learning rate with two significant digits, which names and grids show in full."""
    return float(f"{rate:.1e}")
