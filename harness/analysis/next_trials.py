"""What to try next: the few further trials that a run's results speak for, and changes of the suite.

Each rule below reads one pattern in the results and proposes a few rows for the next grid. What the grid of the run
contains already is never proposed.
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
from harness.core.quantities import points
from harness.core.rehearsal import fitting
from harness.core.run_results import Loss, LossVerdict, Outcome, Results
from harness.core.settings import Settings
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.core.variant_names import differing, label

MOST = 5
"""Largest number of trials that are proposed."""
MUCH = 0.5
"""Share of the margin above which a net loss is worth reducing. To show a smaller one, more cases suffice."""
FEW = 0.25
"""The smallest number of rows with which rehearsal begins, per training row.

A few rows tend to take back little of what was learned, but keep less of what would be forgotten than many.
"""
SOME = (0.5, 1.0)
"""The larger numbers of rows with which rehearsal begins, per training row.

They tend to keep more and to take back more, which more training can make up for.
"""
MORE_TRAINING = 2.0
"""Factor to the learning rate, or to the epochs, of a variant that gets these larger numbers."""
REHEARSAL_FACTOR = 2
"""Factor by which rehearsal is raised that was not enough."""
FINEST = 0.25
"""Two numbers of rehearsal rows are worth one between them if it differs by at least this many per training row."""
MOST_REHEARSAL = 200
"""Largest number of rehearsal rows that is proposed if the run has none, so that their number is not known: about half
of the pool's prompts, since some answers are left out."""
RATE_FACTOR = 3.0
"""Factor to a learning rate outside of those that were tried."""
LEAST_GAP = 1.5
"""Two learning rates are worth a third one between them if the higher is at least this multiple of the lower."""
NEARLY_ALL = 0.95
"""Pass rate above which more training has nothing to gain."""


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
    """Return what to try after a run: at most five trials, the most promising first.

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
    rules = (_more_training,) if nothing else (_rehearsal, _between, _fewer_epochs, _outside, _longer_rehearsal)
    return NextSteps(_named(run, [rule(run) for rule in rules]), suite_changes(results, run.nearest), nothing)


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

    def has_more_to_learn(self, variant: Outcome) -> bool:
        return share(variant, self.objective) < NEARLY_ALL

    def outcome(self, settings: Settings) -> Outcome | None:
        return next((v for v in self.finished if v.settings == settings), None)

    def seen(self, variant: Outcome) -> str:
        """Return what a variant passes and loses, such as `passes 77% of generalise cases, with 12 points ... lost`."""
        passed = f"passes {100 * share(variant, self.objective):.0f}% of the {self.objective} cases"
        again = self._held_out_loss(variant)
        held_out = f" ({losses.seen(again)} on held-out cases)" if again else ""
        avoid = losses.hidden_in_one_role(variant.losses, self.margin).get(Role.AVOID)
        alone = f" and {points(avoid.points)} of the avoid cases alone" if avoid and avoid.points else ""
        return f"{passed}, with {losses.seen(variant.loss)}{alone}{held_out}" if variant.loss else passed


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
    """Propose a beginning with rehearsal for a good variant that forgets much, and more for one that has some."""
    if first := _without_rehearsal(run):
        yield from _first_rehearsal(run, first)
    for variant in _distinct(run.gentlest, run.best):
        *_, most = run.differing_only_in("rehearsal", _settings(variant))
        tried, had = run.outcome(most), most.rehearsal
        rows = min(_available(run, most), REHEARSAL_FACTOR * had)
        if tried and run.forgets(tried) and rows > had:
            yield _Proposal(
                replace(most, rehearsal=rows),
                f"{tried.name} {run.seen(tried)}. More rehearsal than {had} rows may make it forget less.",
            )


def _without_rehearsal(run: _Run) -> Outcome | None:
    """Return the gentlest variant if it forgets much, and its settings have not been tried with rehearsal."""
    found = run.gentlest
    if found is None or not run.forgets(found):
        return None
    *_, most = run.differing_only_in("rehearsal", _settings(found))
    return None if most.rehearsal else found


def _first_rehearsal(run: _Run, variant: Outcome) -> Iterator[_Proposal]:
    """Propose a few rehearsal rows, and larger numbers of them with twice the learning rate.

    A variant that passes nearly everything has nothing to make up for, and keeps its rate. So does one of which a
    training with a higher rate diverged.
    """
    own, seen = _settings(variant), f"{variant.name} {run.seen(variant)}."
    for rows in _amounts(run, own, FEW):
        yield _Proposal(
            replace(own, rehearsal=rows),
            f"{seen} A few rehearsal rows, with the base model's own answers, should make it forget less, and take "
            "back little of what it learned.",
        )
    rate = _rounded(MORE_TRAINING * own.learning_rate)
    for rows in _amounts(run, own, *SOME):
        if run.has_more_to_learn(variant) and _bears(run, own, rate):
            yield _Proposal(
                replace(own, rehearsal=rows, learning_rate=rate),
                f"{seen} With {rows} rehearsal rows it should forget less, so that twice the learning rate may teach "
                "it more at a smaller loss.",
            )
        else:
            yield _Proposal(
                replace(own, rehearsal=rows),
                f"{seen} With {rows} rehearsal rows it should forget less, but may also learn less.",
            )


def _longer_rehearsal(run: _Run) -> Iterator[_Proposal]:
    """Propose to begin with rehearsal and twice the epochs, which cost most, so that this rule is the last."""
    variant = _without_rehearsal(run)
    if variant is None or not run.has_more_to_learn(variant) or _learning_ended(run, variant):
        return
    own = _settings(variant)
    for rows in _amounts(run, own, *SOME):
        yield _Proposal(
            replace(own, rehearsal=rows, epochs=MORE_TRAINING * own.epochs),
            f"{variant.name} {run.seen(variant)}. With {rows} rehearsal rows it should forget less, so that twice the "
            "epochs may teach it more at a smaller loss.",
        )


def _amounts(run: _Run, settings: Settings, *shares: float) -> list[int]:
    """Return numbers of rehearsal rows, as many per training row as `shares` say, or as many as there are."""
    rows, most = len(run.results.run.suite.examples), _available(run, settings)
    return sorted({min(most, math.ceil(share * rows)) for share in shares} - {0})


def _bears(run: _Run, own: Settings, rate: float) -> bool:
    """Return whether no training diverged that differs only in a learning rate above its own, up to this one."""
    rates = run.differing_only_in("learning_rate", own)
    higher = {each for each in rates if own.learning_rate < each.learning_rate <= rate}
    return not any(v.settings in higher and Status.DIVERGED in v.statuses for v in run.results.variants)


def _available(run: _Run, settings: Settings) -> int:
    """Return how many rehearsal rows a variant can have: those of the run, else as many as may be proposed."""
    rehearsal = run.results.run.rehearsal
    found = rehearsal.of(settings.quantization) if rehearsal else None
    return len(fitting(found.rows, settings.max_length)) if found else run.most_rehearsal


def _between(run: _Run) -> Iterator[_Proposal]:
    """Propose a value between two neighbouring ones, of which one learns more, and the other loses little enough."""
    for setting, words in (("rehearsal", "a number of rehearsal rows"), ("learning_rate", "a learning rate")):
        found = []
        for learner in run.learned:
            values = run.differing_only_in(setting, _settings(learner))
            place = values.index(_settings(learner))
            for other in (*values[max(place - 1, 0) : place], *values[place + 1 : place + 2]):
                keeper, middle = run.outcome(other), _middle(run, setting, _settings(learner), other)
                if keeper and middle and _trade(run, learner, keeper):
                    found.append((learner, keeper, middle))
        for learner, keeper, middle in sorted(found, key=lambda each: -share(each[0], run.objective))[:1]:
            yield _Proposal(
                middle,
                f"{learner.name} {run.seen(learner)}; {keeper.name} {run.seen(keeper)}. The first learns more. The "
                f"second is estimated to lose no more than the margin of {run.margin:g} points{_doubt(keeper)}. "
                f"Try {words} between theirs.",
            )


def _doubt(keeper: Outcome) -> str:
    """Return what an estimate of the loss leaves open: nothing if the loss is shown to stay within the margin."""
    shown = keeper.loss and keeper.loss.verdict is LossVerdict.KEEPS
    return "" if shown else ", but these cases do not show it"


def _trade(run: _Run, learner: Outcome, keeper: Outcome) -> bool:
    """Return whether one variant learns more, but loses more than the margin, and the other does not."""
    more = share(learner, run.objective) > share(keeper, run.objective)
    return more and _lost(learner) > run.margin and _lost(keeper) <= run.margin


def _middle(run: _Run, setting: str, one: Settings, other: Settings) -> Settings | None:
    """Return settings between two that differ in one, or None if they are too close for a third to tell more."""
    if setting == "rehearsal":
        low, high = sorted((one.rehearsal, other.rehearsal))
        enough = (high - low) // 2 >= FINEST * len(run.results.run.suite.examples)
        return replace(one, rehearsal=(low + high) // 2) if enough else None
    slow, fast = sorted((one.learning_rate, other.learning_rate))
    return replace(one, learning_rate=_rounded(math.sqrt(slow * fast))) if fast / slow >= LEAST_GAP else None


def _fewer_epochs(run: _Run) -> Iterator[_Proposal]:
    """Propose fewer epochs where the timeline shows that learning had ended."""
    for variant in _distinct(run.nearest, run.best):
        if enough := _learning_ended(run, variant):
            yield _Proposal(
                replace(_settings(variant), epochs=float(enough)),
                f"After epoch {enough:g} of {_settings(variant).epochs:g}, {variant.name} was within one standard "
                "error of its best epoch. Fewer epochs cost less.",
            )
            return


def _learning_ended(run: _Run, variant: Outcome) -> float | None:
    """Return the epoch after which a variant learned nothing more, if its timeline shows that."""
    enough = next((each.enough for each in run.results.timelines if each.variant == variant.name), None)
    return enough if enough is not None and enough < _settings(variant).epochs else None


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
            f"{best.name} {run.seen(best)}, and has the lowest learning rate of its kind. A lower one may forget less.",
        )
    elif not run.forgets(best) and own == rates[-1] and len(rates) > 1 and run.has_more_to_learn(best):
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
