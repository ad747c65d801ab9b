"""The first screen of the page: the verdict in a sentence, the settings, what was learned, lost and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis import losses, power
from harness.analysis.confirmation import LEVEL
from harness.analysis.next_trials import NextSteps, NextTrial, unfinished
from harness.analysis.selection import gpu_memory
from harness.core import wording
from harness.core.claims import cost_claim, gpu_of, machine_claim
from harness.core.measurement import Basis, Phase, PhaseCost
from harness.core.quantities import interval, points, quantity
from harness.core.run_results import Change, Finding, Loss, Outcome, Results
from harness.core.setting_text import in_report
from harness.core.settings import AXES
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.report import formatting
from harness.report.kinds import Kinds, most_lost, of_variant

MOST_NEXT = 3
"""Number of things to try next that are named."""
MOST_KINDS = 3
"""Number of kinds of cases that are named as lost."""
MUCH_OF_A_KIND = 0.2
"""A kind of cases is named as lost if at least this share of its cases was lost, net."""
LITTLE_OF_A_KIND = 0.5
"""A kind of cases is named as little learned if less than this share of its cases passes."""
LONGEST_PROMPT = 80
"""Number of characters of a prompt that is shown as an example."""


@dataclass(frozen=True)
class Tile:
    """One of the three figures of the first screen: its title, the figure, what it says, and further sentences."""

    title: str
    figure: str
    says: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class TryNext:
    """The first thing to try next: a sentence, and the code or command that it names."""

    sentence: str
    code: str = ""


@dataclass(frozen=True)
class FirstScreen:
    """Content of the first screen."""

    verdict: str
    """What the reader may do, in a sentence."""
    word: str
    """The class of the verdict: `confirmed`, `not-confirmed`, `refuted`, `nothing` or `fits`."""
    alone: str
    """Of which role alone more is lost than the suite allows; empty if of none, or if the verdict says `refuted`."""
    settings: tuple[tuple[str, str], ...]
    """Title and value of the settings that differ between the variants."""
    shown: str
    """Which variant the figures are about, if none was chosen."""
    tiles: tuple[Tile, ...]
    words: tuple[tuple[str, str], ...]
    """The words that the figures use, each with its meaning."""
    next: tuple[TryNext, ...]


def first_screen(results: Results, best: Outcome | None, shown: Outcome | None, next_steps: NextSteps) -> FirstScreen:
    """Return the first screen. Without a best variant, `shown` has the highest pass rate; None if none has answers."""
    if results.run.model.shape_only:
        return _fits(results)
    word, verdict = _verdict(results, best)
    return FirstScreen(
        verdict=verdict,
        word=word,
        alone=_one_role_alone(results, best) if best and word != Finding.REFUTED else "",
        settings=tuple((formatting.within_sentence(AXES[n].title), in_report(n, v)) for n, v in best.differs.items())
        if best
        else (),
        shown=f"The figures are those of {shown.name}, which was not chosen." if shown and not best else "",
        tiles=tuple(_tiles(results, shown)) if shown else (),
        words=tuple(_words(results, best, shown)) if shown else (),
        next=tuple(_next(results, next_steps)),
    )


# --- the verdict -------------------------------------------------------------------------------------------------


def _verdict(results: Results, best: Outcome | None) -> tuple[str, str]:
    """Return the class of the verdict, and the sentence."""
    model = results.run.model.name
    if best is None:
        few = power.too_few_passes(results)
        return "nothing", few or " ".join(results.choice.reasons[:1])
    found = results.choice.confirmation if results.confirmed else None
    if found is None:
        return "not-confirmed", "Not confirmed: no held-out cases have tested it. The best of many is partly lucky."
    if found.finding is Finding.REFUTED:
        return "refuted", "Refuted: its held-out cases under fresh seeds speak against it. Do not use it."
    if found.finding is Finding.NOT_CONFIRMED:
        return "not-confirmed", (
            "Not confirmed: its held-out cases under fresh seeds show neither that it keeps enough and gains, nor the "
            "opposite. Do not rely on it yet."
        )
    use = "" if results.run.model.toy else f" Use it for {model}."
    return "confirmed", (
        f"Confirmed: on held-out cases under fresh seeds, it gains, and it loses less than the suite allows.{use}"
    )


def _one_role_alone(results: Results, best: Outcome) -> str:
    """Say of which role alone more is lost than the suite allows; empty if of none, or if there is only one role."""
    own, held_out = _headline_cases(results, best)
    margin = results.run.suite.margin
    if len(own.losses) < len(losses.GUARDED):
        return ""
    return " ".join(
        f"On the {'held-out ' if held_out else ''}{role} cases alone, it loses {points(loss.points)} points: more "
        f"than the {margin:g} that the suite allows for {' and '.join(losses.GUARDED)} cases together."
        for role, loss in own.losses.items()
        if loss.points is not None and loss.points > margin
    )


# --- the three figures ---------------------------------------------------------------------------------------------


def _tiles(results: Results, shown: Outcome) -> Iterator[Tile]:
    own, held_out = _headline_cases(results, shown)
    base = results.confirmed_base if held_out else results.base_of(shown)
    if (base or results.base).rates:
        kinds = of_variant(results, shown, held_out=held_out)
        yield _learned(results, base or results.base, own, held_out, kinds)
        yield _lost(results, shown, own, held_out, kinds)
    yield _costs(results, shown)


def _words(results: Results, best: Outcome | None, shown: Outcome) -> Iterator[tuple[str, str]]:
    """Yield the words that the first screen uses and that a newcomer does not know, each with its meaning."""
    own, held_out = _headline_cases(results, shown)
    if not own.rates:
        return
    for role in dict.fromkeys((results.choice.objective, *losses.GUARDED)):
        if role in own.rates:
            yield role.value, formatting.ROLES[role]
    if held_out:
        yield "held-out", "not used for the choice"
        yield "fresh seeds", "trained again"
    if len(own.seeds) > 1:
        yield "decimals", "means over seeds"
    if best and best.differs.get("rehearsal"):
        yield "rehearsal", "rows with the base's own answers"


def _headline_cases(results: Results, shown: Outcome) -> tuple[Outcome, bool]:
    """Return the outcome whose figures are shown, and whether it is on held-out cases: if the variant has answered."""
    again = results.confirmed
    if again and again.name == shown.name and again.rates:
        return again, True
    return shown, False


def _learned(results: Results, base: Outcome, own: Outcome, held_out: bool, kinds: Kinds) -> Tile:
    objective = results.choice.objective
    which = f"{'held-out ' if held_out else ''}{objective} cases"
    rate = formatting.percent(own.rates.get(objective))
    change = own.changes.get(objective)
    says = f"of the {which} pass; the base passes {formatting.percent(base.rates.get(objective))}."
    more = (_change(change, which),) if change else ()
    return Tile("Learned", rate, says, (*more, *_learned_least(objective, kinds)))


def _learned_least(objective: Role, kinds: Kinds) -> tuple[str, ...]:
    """Name the kinds of the objective's cases of which the smallest shares pass; none if there is only one kind."""
    own = {kind: cell for (role, kind), cell in kinds.items() if role is objective and cell.cases}
    found = [(kind, cell) for kind, cell in own.items() if cell.passed < LITTLE_OF_A_KIND * cell.cases]
    if not found or len(own) < 2:
        return ()
    found.sort(key=lambda each: each[1].passed / each[1].cases)
    names = [f"{kind} ({points(cell.passed)} of {cell.cases})" for kind, cell in found]
    return (f"Learned least: {wording.listed(names, MOST_KINDS)}.",)


def _change(change: Change, which: str) -> str:
    more = "more" if change.points >= 0 else "less"
    low, high = (-change.high, -change.low) if change.points < 0 and change.high < 0 else (change.low, change.high)
    return (
        f"On {which}, {points(abs(change.points))} points {more} than the base ({interval(low, high)} with 95% "
        "confidence)."
    )


def _lost(results: Results, shown: Outcome, own: Outcome, held_out: bool, kinds: Kinds) -> Tile:
    loss, margin = own.loss, results.run.suite.margin
    which = f"{'held-out ' if held_out else ''}retain and avoid cases"
    most = (*_by_role(own), *_lost_most(results, shown, held_out, kinds))
    if loss is None:
        return Tile("Lost", "not known", "The suite has no retain or avoid cases to compare.", most)
    if loss.points is None:
        return Tile("Lost", "not known", f"The base passes none of the {which}, so no loss can be measured.", most)
    size = points(abs(loss.points))
    figure = "nothing" if size == "0" else f"{size} points {'gained' if loss.points < 0 else 'lost'}"
    says = f"of what the base passes on {which}; {_bound(results, loss, held_out)}the suite allows {margin:g}."
    return Tile("Lost", figure, says, most)


def _bound(results: Results, loss: Loss, held_out: bool) -> str:
    found = results.choice.confirmation
    if held_out and found and found.upper is not None:
        return f"{losses.less_than(found.upper)} with {100 * LEVEL:.0f}% confidence; "
    if held_out:
        return ""
    return f"{losses.between(loss)}; "


def _by_role(own: Outcome) -> tuple[str, ...]:
    """Give the loss of each role alone, if there are several."""
    found = [
        f"{role} {points(abs(loss.points))} points{' gained' if points(loss.points).startswith('-') else ''}"
        for role, loss in own.losses.items()
        if loss.points is not None
    ]
    return (f"By role: {', '.join(found)}.",) if len(found) > 1 else ()


def _lost_most(results: Results, shown: Outcome, held_out: bool, kinds: Kinds) -> tuple[str, ...]:
    """Name the kinds of retain and avoid cases of which most was lost, with a prompt of the first."""
    found = [
        (cell.net_loss, role, kind, cell)
        for (role, kind), cell in kinds.items()
        if role in losses.GUARDED and cell.cases and cell.net_loss >= MUCH_OF_A_KIND * cell.cases
    ]
    found.sort(key=lambda each: -each[0])
    if not found:
        return ()
    _, first, of, _ = found[0]
    case = most_lost(results, shown, (first, of), held_out=held_out)
    example = f", such as “{_line(case.prompt)}”" if case else ""
    names = [
        f"{kind} ({role}: {points(net)} of {wording.plural(cell.cases, 'case')}{'' if n else example})"
        for n, (net, role, kind, cell) in enumerate(found)
    ]
    return (f"Lost most: {wording.listed(names, MOST_KINDS)}.",)


def _line(text: str) -> str:
    """Return a text as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_PROMPT else f"{line[: LONGEST_PROMPT - 1]}…"


def _costs(results: Results, shown: Outcome) -> Tile:
    machine, train = results.run.provenance.machine, shown.cost(Phase.TRAIN)
    if train is None:
        return Tile("Costs", "not known", "The training was not measured.")
    on_gpu = gpu_memory(shown)
    whole = on_gpu in [cost.peak_device for cost in shown.costs]
    of_gpu = f"memory of the whole GPU{_allocated(train)}" if whole else f"GPU memory in {formatting.ALLOCATOR}"
    what = of_gpu if on_gpu else "main memory, with Python and libraries"
    emulated = train.seconds.basis is Basis.EMULATED
    speed = (
        f" at {wording.one(train.seconds.device)}'s speed ({gpu_of(machine)}'s was not measured)" if emulated else ""
    )
    figure = f"{quantity(train.seconds)}, {quantity(on_gpu or train.peak())}"
    says = f"to train it alone: time{speed} and peak {what}; {cost_claim(train, machine)}."
    if machine.kind is DeviceKind.CPU:
        tell = (
            f"Time and memory on a CPU say nothing about a GPU: this run cannot tell whether it fits {gpu_of(machine)}"
            ", or how long a class takes there."
        )
        return Tile("Costs", figure, says, (tell,))
    return Tile("Costs", figure, says, (_of_a_class(results, shown),))


def _allocated(train: PhaseCost) -> str:
    """Say which part of the memory of the whole GPU the charts and tables show."""
    if train.peak_reserved is None:
        return ""
    return f" (charts and tables have the part in {formatting.ALLOCATOR} while training: {quantity(train.peak())})"


def _of_a_class(results: Results, shown: Outcome) -> str:
    """Say how long a class takes: as long as one student who loads, trains and answers alone, if that was measured."""
    again = results.confirmed
    held_out = again is not None and again.name == shown.name and bool(again.rates)
    own = again if held_out and again else shown
    base = (results.confirmed_base if held_out else None) or results.base_of(shown)
    parts = (base.cost(Phase.LOAD), own.cost(Phase.TRAIN), own.cost(Phase.ANSWER_AFTER))
    known = [part.seconds.value for part in parts if part and part.models == 1]
    if len(known) < len(parts):
        return "A class whose students each have a GPU takes as long as one student."
    which = "held-out cases" if held_out else "cases"
    return (
        f"A class whose students each have a GPU takes {wording.duration(sum(known))}: to load the model, train it and "
        f"answer the {which}."
    )


# --- what to try next ------------------------------------------------------------------------------------------------


def nearest(results: Results, trial: NextTrial) -> Outcome | None:
    """Return the variant whose settings are nearest to those of a trial: it differs in the fewest settings.

    Of several, it is the chosen one, else the one with the nearest learning rate.
    """
    known = [v for v in results.variants if v.settings and v.rates]
    chosen = results.choice.variant
    return min(known, key=lambda v: (len(_differing(v, trial)), v.name != chosen, _rates_apart(v, trial)), default=None)


def _rates_apart(variant: Outcome, trial: NextTrial) -> float:
    """Return how far two learning rates are apart, as the logarithm of their ratio."""
    assert variant.settings is not None
    return abs(math.log(variant.settings.learning_rate / trial.settings.learning_rate))


def _differing(variant: Outcome, trial: NextTrial) -> list[str]:
    assert variant.settings is not None
    return [name for name in AXES if getattr(variant.settings, name) != getattr(trial.settings, name)]


def _next(results: Results, steps: NextSteps) -> Iterator[TryNext]:
    if not steps.any and unfinished(results):
        yield TryNext("Finish this run first: the same command continues it.")
    elif not steps.any:
        yield TryNext("Nothing: these results speak for no further trial and for no change of the suite.")
    if steps.nothing:
        yield TryNext(_first_sentence(steps.nothing.reason), steps.nothing.command)
    for trial in steps.trials[:2]:
        near = nearest(results, trial)
        if near is None or near.settings is None:
            yield TryNext(trial.name)
            continue
        changed = wording.listed(
            f"{formatting.within_sentence(AXES[n].title)} {in_report(n, getattr(trial.settings, n))} instead of "
            f"{in_report(n, getattr(near.settings, n))}"
            for n in _differing(near, trial)
        )
        yield TryNext(f"Train once more like {near.name}, but with {changed}.")
    for sentence in steps.suite[: MOST_NEXT - len(steps.trials[:2])]:
        yield TryNext(f"{_first_sentence(sentence)}")


def _first_sentence(text: str) -> str:
    """Return the part of a text before its first colon or full stop that ends a sentence, with a full stop."""
    ends = [place for sign in (": ", ". ") if (place := text.find(sign)) > 0]
    return (text[: min(ends)] if ends else text.rstrip(".")) + "."


# --- what fits, for models with random weights -----------------------------------------------------------------------


def _fits(results: Results) -> FirstScreen:
    """Return the first screen of a run with random weights, of which only memory and time mean something."""
    machine = results.run.provenance.machine
    known = [v for v in results.variants if v.statuses and _is_known(v)]
    fitting = [v for v in known if Status.OUT_OF_MEMORY not in v.statuses]
    predicted = sum(any(v.predicted) for v in known)
    by_prediction = f" {predicted} of them were predicted and not run." if predicted else ""
    verdict = (
        f"{len(fitting)} of {wording.plural(len(known), 'training')} fit {gpu_of(machine)}.{by_prediction}"
        if machine.kind is not DeviceKind.CPU
        else f"This run was on a CPU: it cannot tell what fits {gpu_of(machine)}."
    )
    return FirstScreen(verdict, "fits", "", (), f"Time and memory {machine_claim(machine)}.", (), (), ())


def _is_known(variant: Outcome) -> bool:
    return all(status in (Status.SUCCEEDED, Status.DIVERGED, Status.OUT_OF_MEMORY) for status in variant.statuses)
