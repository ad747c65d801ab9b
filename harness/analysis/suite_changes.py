"""Changes of the suite that would let a run say more: longer answers, and more cases of a role."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import losses, power
from harness.analysis.losses import GUARDED
from harness.core.names import BASE
from harness.core.run_results import Change, Finding, LossVerdict, Outcome, Results, Verdict
from harness.core.scores import Sample
from harness.core.suite import Role, Split
from harness.core.turn_tokens import CutRows
from harness.core.wording import listed, plural

NOTABLE = 0.05
"""Share of answers that were cut and failed, above which more tokens are worth a try."""
LONGER = 2
"""Factor by which the limit of new tokens is raised."""


def suite_changes(results: Results, variant: Outcome | None) -> tuple[str, ...]:
    """Return the changes as sentences. `variant` is the chosen variant, or the one that comes nearest; or None."""
    found = (
        _rows_against(results, variant),
        _longer_answers(results, variant),
        _more_guarded(results, variant),
        _more_of_objective(results, variant),
        *_held_out(results),
    )
    return tuple(sentence for sentence in found if sentence)


# --- longer answers ----------------------------------------------------------------------------------------------


def _longer_answers(results: Results, variant: Outcome | None) -> str:
    """Propose more tokens if many answers were cut and failed, or longer rows, if those that were trained had no end.

    Of the base model, only answers to `retain` and `avoid` cases count: it need not know the others.
    """
    roles = {case.id: case.role for case in results.run.suite.cases}
    taught = (results.choice.objective, Role.LEARN)
    asked = [(BASE, GUARDED), *([(variant.name, GUARDED), (variant.name, taught)] if variant else [])]
    for name, own_roles in asked:
        own = [s for s in results.samples if s.variant == name and roles.get(s.case) in own_roles]
        cut = [sample for sample in own if _cut(sample)]
        if own and len(cut) > NOTABLE * len(own):
            limit = results.run.suite.decoding.max_new_tokens
            which = listed(role for role in Role if role in own_roles)
            who = "the base model" if name == BASE else name
            if variant is not None and name != BASE and (rows := endless_rows(results, name)):
                return (
                    f"Raise `max_length` in the grid above {rows.max_length}, or shorten the training rows: {len(cut)} "
                    f"of {plural(len(own), 'answer')} of {who} to {which} cases went on to the limit of {limit} tokens "
                    f"and failed, and {rows.words}."
                )
            return (
                f"Raise `decoding.max_new_tokens` in suite.yaml from {limit} to {LONGER * limit}: {len(cut)} of "
                f"{plural(len(own), 'answer')} of {who} to {which} cases were cut at {limit} tokens and failed. "
                "Nothing is trained again for that; only the answers are."
            )
    return ""


def endless_rows(results: Results, name: str) -> CutRows | None:
    """Return how many training rows of a variant lose the end of an answer; None for none, or if it is not known.

    Such rows do not teach the model to stop. Its answers then go on to any limit of new tokens.
    """
    tokens = results.run.tokens
    settings = next((outcome.settings for outcome in results.variants if outcome.name == name), None)
    found = tokens.cut(settings.max_length) if tokens and settings else None
    return found if found and found.endless else None


def _cut(sample: Sample) -> bool:
    return sample.answer.truncated and not sample.score.passed


# --- other training rows -----------------------------------------------------------------------------------------


def _rows_against(results: Results, variant: Outcome | None) -> str:
    """Propose training rows against what a variant should avoid, if it loses much of the `avoid` cases alone.

    The loss on both roles together can hide this, and rehearsal on everyday prompts need not prevent it.
    """
    again = results.confirmed
    held_out = again.losses if again and variant and again.name == variant.name else {}
    for own, which in ((variant.losses if variant else {}, ""), (held_out, "held-out ")):
        loss = losses.hidden_in_one_role(own, results.run.suite.margin).get(Role.AVOID)
        if variant and loss:
            return (
                f"Add training rows with questions like the avoid cases, answered as they should be: on the {which}"
                f"avoid cases alone, {losses.counts(loss)} ({variant.name}). Rehearsal with everyday prompts need not "
                "prevent that."
            )
    return ""


# --- more cases --------------------------------------------------------------------------------------------------


def _more_guarded(results: Results, variant: Outcome | None) -> str:
    """Say how many `retain` and `avoid` cases would show the loss of a variant to be below the margin."""
    suite = results.run.suite
    cases = [case for case in suite.of(Split.MAIN) if case.role in GUARDED]
    if not cases:
        return "Add retain cases: without any, the run cannot show what a variant has forgotten." if variant else ""
    loss = variant.loss if variant else None
    if variant is None or loss is None:
        needed = power.cases_for_no_loss(results) if power.too_few_passes(results) else None
        return f"{_add(len(cases), needed, 'retain or avoid')}, or some that the base model passes." if needed else ""
    if loss.verdict is not LossVerdict.CANNOT_TELL:
        return ""
    if loss.points is None:
        return "Replace the retain and avoid cases by ones that the base model can pass. It passes none of them."
    if loss.points >= suite.margin:
        return ""  # no number of cases would show such a loss to be below the margin
    if loss.needed is None:
        return (
            f"Add seeds to the grid: the {plural(loss.seeds, 'seed')} of {variant.name} differ so much that no number "
            f"of cases would show that it loses less than {suite.margin:g} points."
        )
    if loss.needed <= loss.cases:
        return ""
    return (
        f"{_add(loss.cases, loss.needed, 'retain or avoid')}. That would show that {variant.name} "
        f"({losses.seen(loss)}) loses less than {suite.margin:g} points."
    )


def _more_of_objective(results: Results, variant: Outcome | None) -> str:
    """Say how many cases of the objective would show a gain, if the run has no confirmation."""
    change = variant.changes.get(results.choice.objective) if variant else None
    if variant is None or change is None or results.choice.confirmation or not _open(change):
        return ""
    more = _add(change.cases, change.needed, results.choice.objective)
    return f"{more}. That would show whether {variant.name} is better than the base model."


def _held_out(results: Results) -> Iterator[str]:
    choice, held = results.choice, results.run.suite.of(Split.CONFIRM)
    found = choice.confirmation
    if choice.variant and not held:
        yield (
            f"Hold out about a third of the {choice.objective}, retain and avoid cases (`split: confirm`), so that "
            "fresh seeds can confirm the choice."
        )
    if found is None or found.finding is not Finding.NOT_CONFIRMED:
        return
    guarded = sum(case.role in GUARDED for case in held)
    if found.needed and found.needed > guarded:
        yield f"{_add(guarded, found.needed, 'held-out retain or avoid')}. That would confirm a loss like the one seen."
    change = results.confirmed.changes.get(choice.objective) if results.confirmed else None
    if change and _open(change):
        yield f"{_add(change.cases, change.needed, f'held-out {choice.objective}')}. That would confirm the gain."


def _open(change: Change) -> bool:
    """Return whether more cases would decide whether there is a gain."""
    undecided = change.verdict is Verdict.INCONCLUSIVE and change.low <= 0
    return undecided and change.needed is not None and change.needed > change.cases


def _add(cases: int, needed: int | None, which: str) -> str:
    """Return the beginning of a sentence that asks for more cases, such as "Add about 60 retain cases"."""
    split = " (`split: confirm`)" if which.startswith("held-out") else ""
    more = (needed or 0) - cases
    return f"Add about {plural(more, f'{which} case')}{split} like the {cases} that there are, {needed:,} in all"
