"""A decision in words: for a terminal, for a pull request, and as annotations where GitHub runs it.

Prompts and answers are other people's text: in a terminal they lose what steers it, in Markdown they stand in code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness.analysis.regression.verdict import amount, chance, changed, tolerance
from harness.core.regression import (
    Comparison,
    CostChange,
    Decision,
    Flip,
    Judgement,
    Mismatch,
    Reason,
    RoleChange,
    SuiteChange,
    VariantChange,
)
from harness.core.results import Verdict
from harness.core.scores import Rate

SHOWN = 8
"""Lost cases that are told in full; the rest is counted."""
LENGTH = 160
"""Characters of a prompt or an answer."""
_SUITE = {
    "asked_otherwise": "left out, asked in other words",
    "gone": "no longer in the suite",
    "new": "new in the suite",
    "judged_otherwise": "judged again by the later suite's assertions",
    "unjudged": "left out, for what the later assertions need was not kept",
}


def plain(text: str, length: int = LENGTH) -> str:
    """One line that steers no terminal and no workflow: control and direction characters are dropped, and it is cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("##[", "## [")
    return line if len(line) <= length else line[: length - 1] + "…"


# --- a terminal --------------------------------------------------------------------------------------------------


def text(decision: Decision) -> str:
    """The verdict, then for every variant what was changed, what drifted, and what came of it."""
    comparison = decision.comparison
    lines = [f"{str(decision.verdict).upper()}: {_title(comparison)}"]
    if decision.verdict is Verdict.NOT_COMPARABLE:
        lines += [f"  {reason}" for reason in decision.reasons]
    for judgement, variant in _each(decision):
        lines += ["", f"{variant.name}: {judgement.verdict}", *_variant_lines(judgement, variant)]
    lines += _listed("Changed since the baseline, so suspects:", comparison.changed)
    lines += _suite_lines(comparison)
    return "\n".join(map(_safe, lines))


def _safe(line: str) -> str:
    """`plain`, with its indentation; GitHub reads a line that begins with two colons as a command."""
    body = line.lstrip(" ")
    told = plain(body, 400)
    return " " * (len(line) - len(body)) + (f": {told[1:]}" if told.startswith("::") else told)


def _title(comparison: Comparison) -> str:
    commit = f", commit {comparison.before.git_commit[:9]}" if comparison.before.git_commit else ""
    return f"{comparison.after.name} against {comparison.before.name} ({comparison.before.started[:10]}{commit})"


def _each(decision: Decision) -> Iterator[tuple[Judgement, VariantChange]]:
    yield from zip(decision.variants, decision.comparison.variants, strict=False)


def _variant_lines(judgement: Judgement, variant: VariantChange) -> Iterator[str]:
    for title, differences in (("settings changed", variant.settings), ("settings drift", variant.drift)):
        yield from (f"  {title}: {changed(difference)}" for difference in differences)
    yield from (f"  {_mark(reason)} {reason.text}" for reason in judgement.reasons)
    yield from (f"  - {_not_compared(cost)}" for cost in variant.costs if cost.hindrance)
    lost = [flip for flip in variant.flips if flip.lost]
    for flip in _worth_telling(lost, judgement):
        critical = ", critical" if flip.critical else ""
        yield f"  lost: {flip.case} ({flip.role}{critical}), {_of(flip.before)}, now {_of(flip.after)} seeds"
        yield f"      asked: {plain(flip.prompt)}"
        yield f"      was:   {plain(flip.answer_before)}"
        yield f"      now:   {plain(flip.answer_after)}"
    more = len(lost) - len(_worth_telling(lost, judgement))
    if more:
        yield f"  passed under fewer seeds than before: {more} {'more ' if more < len(lost) else ''}of the cases"


def _worth_telling(lost: Sequence[Flip], judgement: Judgement) -> Sequence[Flip]:
    """Where nothing is worse, single flips are the draw of the seeds; unless a case is lost altogether."""
    told = lost if judgement.verdict is Verdict.REGRESSED else [flip for flip in lost if flip.everywhere]
    return told[:SHOWN]


def _mark(reason: Reason) -> str:
    return {Verdict.REGRESSED: "!!", Verdict.INCONCLUSIVE: "??", Verdict.IMPROVED: "++"}.get(reason.verdict, "ok")


def _of(rate: Rate) -> str:
    return f"{rate.passed} of {rate.total}"


def _not_compared(cost: CostChange) -> str:
    return f"{cost.what} {amount(cost.before)}, now {amount(cost.after)}: not compared: {cost.hindrance}"


def _listed(title: str, mismatches: Sequence[Mismatch]) -> list[str]:
    return ["", title, *(f"  {changed(mismatch)}" for mismatch in mismatches)] if mismatches else []


def _suite_lines(comparison: Comparison) -> Iterator[str]:
    notes = [*_suite_notes(comparison.suite)]
    if comparison.void:
        notes.append(
            f"{len(comparison.void)} not counted, for this base's own answer voids them: {_few(comparison.void)}"
        )
    if comparison.added:
        notes.append(f"not in the baseline: {', '.join(comparison.added)}")
    if comparison.base:
        notes.append(
            f"the untrained model itself is judged otherwise on: {_few(flip.case for flip in comparison.base)}"
        )
    if notes:
        yield from ("", "Cases:", *(f"  {note}" for note in notes))


def _suite_notes(suite: SuiteChange) -> Iterator[str]:
    for name, what in _SUITE.items():
        ids = getattr(suite, name)
        if ids:
            yield f"{len(ids)} {what}: {_few(ids)}"


def _few(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


# --- a pull request ----------------------------------------------------------------------------------------------


def markdown(decision: Decision) -> str:
    """The same for a pull request: a headline, a table for each variant, lost cases folded away."""
    comparison = decision.comparison
    blocks = [f"## {_headline(decision.verdict)}", code(_title(comparison))]
    if decision.verdict is Verdict.NOT_COMPARABLE:
        blocks.append(_bullets(code(reason) for reason in decision.reasons))
    for judgement, variant in _each(decision):
        blocks += _variant_blocks(judgement, variant, decision)
    if comparison.changed:
        blocks += ["### Changed since the baseline", _bullets(code(changed(one)) for one in comparison.changed)]
    notes = [line.strip() for line in _suite_lines(comparison) if line.startswith(" ")]
    if notes:
        blocks += ["### Cases", _bullets(code(note) for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _headline(verdict: Verdict) -> str:
    return f"Regression gate: {verdict}"


def _variant_blocks(judgement: Judgement, variant: VariantChange, decision: Decision) -> Iterator[str]:
    yield f"### {code(variant.name)}: {judgement.verdict}"
    changes = [f"settings changed: {code(changed(one))}" for one in variant.settings]
    changes += [f"**settings drift**: {code(changed(one))}" for one in variant.drift]
    changes += [code(reason.text) for reason in judgement.reasons if reason.verdict in _TOLD]
    if changes:
        yield _bullets(changes)
    rows = [_role_row(role) for role in variant.roles]
    rows += [_cost_row(cost, decision) for cost in variant.costs]
    if rows:
        yield "\n".join(["| | before | now | change | may be chance |", "|---|---|---|---|---|", *rows])
    lost = [flip for flip in variant.flips if flip.lost]
    if lost:
        told = "\n".join(_lost(flip) for flip in lost[:SHOWN])
        rest = f"\n- and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        cases = "1 case passes" if len(lost) == 1 else f"{len(lost)} cases pass"
        yield f"<details><summary>{cases} under fewer seeds</summary>\n\n{told}{rest}\n\n</details>"


_TOLD = (Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED)


def _role_row(role: RoleChange) -> str:
    interval = f"{100 * role.difference.low:+.1f} to {100 * role.difference.high:+.1f}"
    return (
        f"| {role.role}, {role.cases} cases | {100 * role.before.value:.1f}% | {100 * role.after.value:.1f}% | "
        f"{100 * role.difference.value:+.1f} points ({interval}) | {chance(role.worse_adjusted)} |"
    )


def _cost_row(cost: CostChange, decision: Decision) -> str:
    if cost.hindrance:
        change, room = "not compared", code(cost.hindrance)
    else:
        old, new = (sum(one.value for one in side) / len(side) for side in (cost.before, cost.after))
        change = f"{100 * (new - old) / old:+.0f}%"
        room = f"up to {100 * tolerance(cost, decision.policy):.0f}%" if len(cost.before) > 1 else "one training"
    return f"| {cost.what} | {amount(cost.before)} | {amount(cost.after)} | {change} | {room} |"


def _lost(flip: Flip) -> str:
    critical = ", **critical**" if flip.critical else ""
    head = f"- {code(flip.case)} ({flip.role}{critical}): {_of(flip.before)}, now {_of(flip.after)} seeds"
    parts = {"asked": flip.prompt, "was": flip.answer_before, "now": flip.answer_after}
    return "\n".join([head, *(f"  - {name}: {code(words)}" for name, words in parts.items())])


def code(words: str) -> str:
    """Other people's text as code that it cannot end: between more backticks than it has in a row."""
    line = plain(words, 300).replace("|", "¦")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`" if line else "``  ``"


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


# --- annotations -------------------------------------------------------------------------------------------------


def workflow_commands(decision: Decision) -> str:
    """GitHub's workflow commands: an error for what is worse, a warning for what is not known or has drifted."""
    lines = []
    if decision.verdict is Verdict.NOT_COMPARABLE:
        lines += [_annotation("error", "not comparable", reason) for reason in decision.reasons]
    for judgement, variant in _each(decision):
        lines += [_annotation("warning", f"{variant.name}: settings drift", changed(one)) for one in variant.drift]
        for reason in judgement.reasons:
            level = {Verdict.REGRESSED: "error", Verdict.INCONCLUSIVE: "warning"}.get(reason.verdict)
            if level:
                lines.append(_annotation(level, f"{variant.name}: {reason.verdict}", reason.text))
    return "\n".join(lines)


def _annotation(level: str, title: str, message: str) -> str:
    def escaped(words: str) -> str:
        return plain(words, 400).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")

    return f"::{level} title={escaped(title)}::{plain(message, 400).replace('%', '%25')}"
