"""Constructed results of small grids, for tests of what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.aggregate import assemble
from harness.core.run import EpochAnswers, TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Decoding, Example, Message, Role, Split
from harness.core.training_outcome import Status, Training
from tests.support.synthetic_runs import case, manifest, record, score, suite, training

GENERALISE, RETAIN = 40, 60
"""Number of cases of each role."""
ROWS = 30
"""Number of training rows."""
MARGIN = 15.0
LIMIT = 32
"""Limit of new tokens."""


@dataclass(frozen=True)
class Tried:
    """A variant of a grid: how many `generalise` and `learn` cases it passes, and how many `retain` cases it fails."""

    settings: Settings
    passed: int = 0
    lost: int = 0
    learned: int = 0
    enough: int | None = None
    """The epoch after which it passes all that it passes in the end; with it, the results have a timeline."""
    cut: int = 0
    """Number of its `retain` answers that fail, beginning with the last, because they were cut."""
    did: int = 0
    """How many `avoid` cases it fails, because it does what it should not."""
    diverged: bool = False


def results(
    *tried: Tried,
    retain: int = RETAIN,
    learn: int = 0,
    avoid: int = 0,
    seeds: Sequence[int] = (0, 1, 2),
    toy: bool = False,
    base_passes: int | None = None,
    base_cut: int = 0,
    rows: Sequence[Example] | None = None,
    again: Mapping[str, int] | None = None,
    held_out: int = 0,
    trained: Training | None = None,
    folder: str = "suites/workshop",
) -> Results:
    """Return the results of a run in which the base passes no `generalise` and `learn` case.

    The base passes the first `base_passes` of the `retain` cases, by default all, and `base_cut` of the others were
    cut. With `again` (the numbers `passed` and `lost` of the first variant), its confirmation has `held_out` cases of
    the roles `generalise` and `retain` each.
    """
    cases = [
        *(case(f"word {n}", Role.GENERALISE) for n in range(GENERALISE)),
        *(case(f"row {n}", Role.LEARN, prompt=f"Question {n} of the rows?") for n in range(learn)),
        *(case(f"keep {n}", Role.RETAIN) for n in range(retain)),
        *(case(f"shun {n}", Role.AVOID) for n in range(avoid)),
        *(case(f"late {n}", Role.GENERALISE, Split.CONFIRM) for n in range(held_out)),
        *(case(f"late keep {n}", Role.RETAIN, Split.CONFIRM) for n in range(held_out)),
    ]
    given = [row(n) for n in range(ROWS)] if rows is None else rows
    asked = replace(suite(cases, margin=MARGIN), examples=tuple(given), decoding=Decoding(LIMIT), folder=folder)
    plan = [Variant(f"v{n}", f"variant {n}", each.settings.resolved()) for n, each in enumerate(tried)]
    first = retain if base_passes is None else base_passes
    before = _answers(cases, Split.MAIN, 0, 0, retain - first, from_end=True)
    cut = frozenset(f"keep {n}" for n in range(first, first + base_cut))
    records = [record(None, before, truncated=cut)]
    records += [record(None, _answers(cases, Split.CONFIRM, 0, 0, 0), split=Split.CONFIRM)] if held_out else []
    for own, variant in zip(tried, plan, strict=True):
        records += [_trial(cases, own, variant, seed, trained or training()) for seed in seeds]
    if again:
        answers = _answers(cases, Split.CONFIRM, again["passed"], 0, again["lost"])
        records += [record(plan[0], answers, seed=s, split=Split.CONFIRM, trained=training()) for s in (100, 101)]
    return assemble(manifest(asked, plan, tuple(seeds), toy=toy), records, score, "now")


def row(number: int, answer: str = "good", prompt: str = "Question {} of the rows?") -> Example:
    """Return the training row that holds the prompt of the case `row NUMBER`, or another prompt."""
    messages = (Message("user", prompt.format(number)), Message("assistant", answer))
    return Example(messages, line=number + 1)


def _trial(cases: Sequence[Case], own: Tried, variant: Variant, seed: int, trained: Training) -> TrialRecord:
    answers = _answers(
        cases, Split.MAIN, own.passed, own.learned, max(own.lost, own.cut), did=own.did, from_end=bool(own.cut)
    )
    kept = [each.id for each in cases if each.id.startswith("keep")]
    truncated = frozenset(kept[len(kept) - own.cut :])
    if own.diverged:
        return record(variant, {}, seed=seed, status=Status.DIVERGED)
    made = record(variant, answers, seed=seed, trained=trained, truncated=truncated)
    if own.enough is None:
        return made
    nothing = record(variant, _answers(cases, Split.MAIN, 0, 0, 0)).answers
    last = int(variant.settings.epochs)
    epochs = (EpochAnswers(n, nothing if n < own.enough else made.answers) for n in range(1, last))
    return replace(made, timeline=tuple(epochs))


def _answers(
    cases: Sequence[Case], split: Split, passed: int, learned: int, lost: int, *, did: int = 0, from_end: bool = False
) -> dict[str, str]:
    """Return an answer to each case.

    The first `passed` and `learned` of two roles are good, and all but `lost` and `did` of the other two.
    """
    own = [each for each in cases if each.split is split]
    good = {Role.GENERALISE: passed, Role.LEARN: learned}
    found: dict[str, str] = {}
    for role in Role:
        ids = [each.id for each in own if each.role is role]
        if role in good:
            failing = set(ids[good[role] :])
        elif role is Role.AVOID:
            failing = set(ids[:did])
        else:
            failing = set(ids[len(ids) - lost :] if from_end else ids[:lost])
        found |= {id: "bad" if id in failing else "good" for id in ids}
    return found
