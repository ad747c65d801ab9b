"""Why did no variant learn? Tell a fault of the suite from a limit of the toy model, or from too little training."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from harness.analysis.case_checks import contradicted_by_rows
from harness.analysis.contamination import leaks_in_results
from harness.core.quantities import points
from harness.core.run_results import Outcome, Results
from harness.core.suite import LeakLabel, Role, Split
from harness.core.wording import listed, plural

LITTLE = 0.05
"""A variant has learned nothing if its pass rate is at most this much above that of the base model."""
MOST_CASES = 0.5
"""The suite is at fault if this share of its `learn` cases cannot be learned from the rows."""
FALLEN = 0.5
"""A training loss has fallen if the last one is at most this share of the first one."""
NAMED = 3
"""Number of cases that a sentence names."""


class Cause(StrEnum):
    """What has to change before other settings are worth a try."""

    SUITE = "suite"
    """Most `learn` cases ask for something that the training rows do not contain."""
    TOY = "toy"
    """The toy model is trained as far as the settings can, and is too small for the suite."""
    TRAINING = "training"
    """The training loss hardly fell."""
    UNKNOWN = "unknown"
    """The training loss fell, and the rows contain what the cases ask."""


@dataclass(frozen=True)
class NothingLearned:
    """The cause for which no variant learned, in sentences, and the command to run; empty if there is none."""

    cause: Cause
    reason: str
    command: str = ""


def nothing_learned(results: Results, trained: Sequence[Outcome]) -> NothingLearned | None:
    """Return why none of the variants `trained` learned what the suite asks; None if one did.

    On the toy model, this includes variants that learned the rows but not the same questions in other words.
    """
    role = Role.LEARN if _asked(results.base, Role.LEARN) else results.choice.objective
    objective = results.choice.objective
    if not trained or not _asked(results.base, role):
        return None
    if _best_gain(results, trained, objective) > LITTLE or _saturated(results.base, objective):
        return None
    if _best_gain(results, trained, role) > LITTLE:
        by_heart = results.run.model.toy and _asked(results.base, objective)
        reason = _learned_by_heart(trained, objective)
        return NothingLearned(Cause.TOY, reason, _on_a_real_model(results)) if by_heart else None
    if _saturated(results.base, role):
        return None
    if reason := _cases_without_rows(results):
        return NothingLearned(Cause.SUITE, reason, f"harness validate {shlex.quote(results.run.suite.folder)}")
    loss = _loss(trained)
    passed = f"the best variant passes {_counts(_best(trained, role), role)}"
    if loss and loss[1] > FALLEN * loss[0]:
        reason = f"No variant learned, and the training loss hardly fell ({_fall(loss)}): {passed}."
        return NothingLearned(Cause.TRAINING, f"{reason} The learning rates are too low, or the trainings too short.")
    fell = f"The training loss fell ({_fall(loss)}), but {passed}." if loss else f"No variant learned: {passed}."
    if results.run.model.toy:
        reason = f"{fell} {_TOO_SMALL}"
        return NothingLearned(Cause.TOY, reason, _on_a_real_model(results))
    return NothingLearned(
        Cause.UNKNOWN,
        f"{fell} Read some of the answers: they may be cut, or the assertions may ask for words that the rows "
        "do not teach.",
    )


_TOO_SMALL = (
    "The toy model failed, not the suite: the rows contain what the cases ask, but the toy is too small to learn it. "
    "Nothing follows from this run about the suite or the settings. Use a real model."
)


def _learned_by_heart(trained: Sequence[Outcome], objective: Role) -> str:
    learned, other = (_best(trained, role) for role in (Role.LEARN, objective))
    return (
        f"The toy model learned the rows ({_counts(learned, Role.LEARN)}), but passes no more {objective} cases than "
        f"before ({_counts(other, objective)}). The toy model failed, not the suite: it is too small to apply what it "
        "learned to other words. Use a real model."
    )


def _on_a_real_model(results: Results) -> str:
    run = results.run
    return f"harness run {shlex.quote(run.suite.folder)} --grid {shlex.quote(run.plan.grid)} --model smollm2"


def _cases_without_rows(results: Results) -> str:
    """Return in sentences that the rows do not contain what most `learn` cases ask; empty if they do."""
    suite = results.run.suite
    cases = [case.id for case in suite.of(Split.MAIN) if case.role is Role.LEARN]
    found, contradicted = leaks_in_results(results), set(contradicted_by_rows(suite))
    unasked = [case for case in cases if case in found and found[case].label is LeakLabel.UNSEEN]
    wrong = [case for case in cases if case in contradicted and case not in unasked]
    if not cases or len(unasked) + len(wrong) < MOST_CASES * len(cases):
        return ""
    parts = [
        *([f"{len(unasked)} ask what no training row asks ({listed(unasked, NAMED)})"] if unasked else []),
        *([f"{len(wrong)} fail even with the answer of the training row ({listed(wrong, NAMED)})"] if wrong else []),
    ]
    return (
        f"No variant learned, and the suite is the cause: of {plural(len(cases), 'learn case')}, {listed(parts)}. "
        "Correct the rows or the cases before trying other settings."
    )


# --- figures -----------------------------------------------------------------------------------------------------


def _asked(base: Outcome, role: Role) -> bool:
    return bool((rate := base.rates.get(role)) and rate.total)


def _saturated(base: Outcome, role: Role) -> bool:
    return share(base, role) >= 1 - LITTLE


def share(outcome: Outcome, role: Role) -> float:
    """Return the pass rate on a role from 0 to 1; 0 without scored answers."""
    rate = outcome.rates.get(role)
    return (rate.value or 0.0) if rate else 0.0


def _best(trained: Sequence[Outcome], role: Role) -> Outcome:
    return max(trained, key=lambda variant: share(variant, role))


def _best_gain(results: Results, trained: Sequence[Outcome], role: Role) -> float:
    return max(share(variant, role) - share(results.base_of(variant), role) for variant in trained)


def _counts(outcome: Outcome, role: Role) -> str:
    rate = outcome.rates.get(role)
    counts = f"{rate.passed} of {rate.total}" if rate else "none"
    seeds = " answers to" if len(outcome.seeds) > 1 else ""
    return f"{counts}{seeds} {role} cases"


def _loss(trained: Sequence[Outcome]) -> tuple[float, float] | None:
    """Return the first and the last training loss of the variant whose loss fell most, as means over seeds."""
    found = []
    for variant in trained:
        logs = [[step.loss for step in training.steps if step.loss is not None] for training in variant.training]
        if logs := [log for log in logs if log]:  # a training of one step has not fallen
            found.append((fmean(log[0] for log in logs), fmean(log[-1] for log in logs)))
    return min((each for each in found if each[0] > 0), key=lambda each: each[1] / each[0], default=None)


def _fall(loss: tuple[float, float]) -> str:
    first, last = (f"{each:.2g}" if each < 10 else points(each) for each in loss)
    return f"from {first} to {last}"
