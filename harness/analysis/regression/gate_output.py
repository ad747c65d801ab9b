"""The gate's output: text for the terminal, Markdown for a pull request, annotations for GitHub Actions.

Prompts and answers are untrusted text. Terminal output drops their control characters, and Markdown shows them as code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.analysis.regression.verdict import amount, chance, describe_mismatch, not_judged, tolerance
from harness.core.outside_text import markdown_code as code
from harness.core.outside_text import one_line
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
from harness.core.run_results import Verdict
from harness.core.scores import Rate

SHOWN = 8
"""Largest number of lost cases that are shown in full. Further ones are only counted."""
LENGTH = 160
"""Maximum length of a shown prompt or answer, in characters."""
SUITE_CHANGES = {
    "asked_otherwise": "left out, because the prompt changed",
    "gone": "only in the earlier suite",
    "new": "only in the later suite",
    "judged_otherwise": "with changed assertions, so the earlier answers were scored again",
    "unjudged": "left out, because the changed assertions need data that the earlier run did not store",
}
"""A description of each kind of change between two suites, by the name of its field in `SuiteChange`."""


# --- terminal ----------------------------------------------------------------------------------------------------


def text(decision: Decision) -> str:
    """Return the text for the terminal: the verdict, then for each variant its changes, reasons and lost cases."""
    comparison = decision.comparison
    lines = [f"{str(decision.verdict).upper()}: {_title(comparison)}"]
    if decision.verdict is Verdict.NOT_COMPARABLE:
        lines += [f"  {reason}" for reason in decision.reasons]
    for judgement, variant in _variants(decision):
        lines += ["", f"{variant.name}: {judgement.verdict}", *_variant_lines(judgement, variant)]
    lines += _listed("Changed since the baseline (possible causes):", comparison.changed)
    lines += _suite_lines(comparison)
    return "\n".join(map(_safe, lines))


def _safe(line: str) -> str:
    """Return one line with its indentation. Break up `::` at the start, which GitHub Actions reads as a command."""
    body = line.lstrip(" ")
    clean = one_line(body, 400)
    return " " * (len(line) - len(body)) + (f": {clean[1:]}" if clean.startswith("::") else clean)


def _title(comparison: Comparison) -> str:
    commit = f", harness commit {comparison.before.git_commit[:9]}" if comparison.before.git_commit else ""
    return f"{comparison.after.name} against {comparison.before.name} ({comparison.before.started[:10]}{commit})"


def _variants(decision: Decision) -> Iterator[tuple[Judgement, VariantChange]]:
    yield from zip(decision.variants, decision.comparison.variants, strict=False)


def _variant_lines(judgement: Judgement, variant: VariantChange) -> Iterator[str]:
    for title, differences in (("settings changed", variant.settings), ("settings drift", variant.drift)):
        yield from (f"  {title}: {describe_mismatch(difference)}" for difference in differences)
    yield from (f"  {_mark(reason)} {reason.text}" for reason in judgement.reasons)
    yield from (f"  - {words}" for words in judgement.unjudged)
    lost = [flip for flip in variant.flips if flip.lost]
    for flip in _shown_flips(lost, judgement):
        critical = ", critical" if flip.critical else ""
        yield f"  lost: {flip.case} ({flip.role}{critical}), {_of(flip.before)}, now {_of(flip.after)} seeds"
        yield f"      asked: {one_line(flip.prompt, LENGTH)}"
        yield f"      was:   {one_line(flip.answer_before, LENGTH)}"
        yield f"      now:   {one_line(flip.answer_after, LENGTH)}"
    more = len(lost) - len(_shown_flips(lost, judgement))
    if more:
        yield f"  {more} {'more ' if more < len(lost) else ''}of the cases passed under fewer seeds than before"


def _shown_flips(lost: Sequence[Flip], judgement: Judgement) -> Sequence[Flip]:
    """Select the lost cases to show. Without a regression, show only cases lost under every seed."""
    # A case lost under some seeds only may be chance.
    shown = lost if judgement.verdict is Verdict.REGRESSED else [flip for flip in lost if flip.everywhere]
    return shown[:SHOWN]


def _mark(reason: Reason) -> str:
    return {Verdict.REGRESSED: "!!", Verdict.INCONCLUSIVE: "??", Verdict.IMPROVED: "++"}.get(reason.verdict, "ok")


def _of(rate: Rate) -> str:
    return f"{rate.passed} of {rate.total}"


def _listed(title: str, mismatches: Sequence[Mismatch]) -> list[str]:
    return ["", title, *(f"  {describe_mismatch(mismatch)}" for mismatch in mismatches)] if mismatches else []


def _suite_lines(comparison: Comparison) -> Iterator[str]:
    notes = [*_suite_notes(comparison.suite)]
    if comparison.added:
        notes.append(f"variants not in the baseline: {', '.join(comparison.added)}")
    if comparison.base:
        notes.append(
            f"cases with another result of the base model itself: {_few(flip.case for flip in comparison.base)}"
        )
    if notes:
        yield from ("", "Cases:", *(f"  {note}" for note in notes))


def _suite_notes(suite: SuiteChange) -> Iterator[str]:
    for name, what in SUITE_CHANGES.items():
        ids = getattr(suite, name)
        if ids:
            yield f"{len(ids)} {what}: {_few(ids)}"


def _few(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


# --- Markdown ----------------------------------------------------------------------------------------------------


def markdown(decision: Decision) -> str:
    """Return Markdown for a pull request: the verdict, a table for each variant, and the lost cases (folded up)."""
    comparison = decision.comparison
    blocks = [f"## {_headline(decision.verdict)}", code(_title(comparison))]
    if decision.verdict is Verdict.NOT_COMPARABLE:
        blocks.append(_bullets(code(reason) for reason in decision.reasons))
    for judgement, variant in _variants(decision):
        blocks += _variant_blocks(judgement, variant, decision)
    if comparison.changed:
        blocks += [
            "### Changed since the baseline (possible causes)",
            _bullets(code(describe_mismatch(one)) for one in comparison.changed),
        ]
    notes = [line.strip() for line in _suite_lines(comparison) if line.startswith(" ")]
    if notes:
        blocks += ["### Cases", _bullets(code(note) for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _headline(verdict: Verdict) -> str:
    return f"Regression gate: {verdict}"


def _variant_blocks(judgement: Judgement, variant: VariantChange, decision: Decision) -> Iterator[str]:
    yield f"### {code(variant.name)}: {judgement.verdict}"
    changes = [f"settings changed: {code(describe_mismatch(one))}" for one in variant.settings]
    changes += [f"**settings drift**: {code(describe_mismatch(one))}" for one in variant.drift]
    changes += [code(reason.text) for reason in judgement.reasons if reason.verdict in _NOTABLE]
    if changes:
        yield _bullets(changes)
    rows = [_role_row(role) for role in variant.roles]
    rows += [_cost_row(cost, decision) for cost in variant.costs]
    if rows:
        yield "\n".join(["| | before | now | change | chance |", "|---|---|---|---|---|", *rows])
    lost = [flip for flip in variant.flips if flip.lost]
    if lost:
        shown = "\n".join(_lost(flip) for flip in lost[:SHOWN])
        rest = f"\n- and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        cases = "1 case passes" if len(lost) == 1 else f"{len(lost)} cases pass"
        yield f"<details><summary>{cases} under fewer seeds</summary>\n\n{shown}{rest}\n\n</details>"


_NOTABLE = (Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED)


def _role_row(role: RoleChange) -> str:
    interval = f"{100 * role.difference.low:+.1f} to {100 * role.difference.high:+.1f}"
    return (
        f"| {role.role}, {role.cases} cases | {100 * role.before.value:.1f}% | {100 * role.after.value:.1f}% | "
        f"{100 * role.difference.value:+.1f} points ({interval}) | {chance(role.worse_adjusted)} |"
    )


def _cost_row(cost: CostChange, decision: Decision) -> str:
    change, why = "not compared", not_judged(cost)
    if not cost.hindrance:
        old, new = (sum(one.value for one in side) / len(side) for side in (cost.before, cost.after))
        change = f"{100 * (new - old) / old:+.0f}%"
    room = code(why) if why else f"up to {100 * tolerance(cost, decision.policy):.0f}%"
    return f"| {cost.what} | {amount(cost.before)} | {amount(cost.after)} | {change} | {room} |"


def _lost(flip: Flip) -> str:
    critical = ", **critical**" if flip.critical else ""
    head = f"- {code(flip.case)} ({flip.role}{critical}): {_of(flip.before)}, now {_of(flip.after)} seeds"
    parts = {"asked": flip.prompt, "was": flip.answer_before, "now": flip.answer_after}
    return "\n".join([head, *(f"  - {name}: {code(words)}" for name, words in parts.items())])


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


# --- annotations -------------------------------------------------------------------------------------------------


def workflow_commands(decision: Decision) -> str:
    """Return GitHub workflow commands: errors for regressions, warnings for inconclusive results and settings drift."""
    lines = []
    if decision.verdict is Verdict.NOT_COMPARABLE:
        lines += [_annotation("error", "not comparable", reason) for reason in decision.reasons]
    for judgement, variant in _variants(decision):
        lines += [
            _annotation("warning", f"{variant.name}: settings drift", describe_mismatch(one)) for one in variant.drift
        ]
        for reason in judgement.reasons:
            level = {Verdict.REGRESSED: "error", Verdict.INCONCLUSIVE: "warning"}.get(reason.verdict)
            if level:
                lines.append(_annotation(level, f"{variant.name}: {reason.verdict}", reason.text))
    return "\n".join(lines)


def _annotation(level: str, title: str, message: str) -> str:
    def escaped(words: str) -> str:
        return one_line(words, 400).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")

    return f"::{level} title={escaped(title)}::{one_line(message, 400).replace('%', '%25')}"
