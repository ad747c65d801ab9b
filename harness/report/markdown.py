"""The summary of a run as Markdown, for a pull request: best variant, table of variants, broken cases, command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis import next_trials, reducers
from harness.core import wording
from harness.core.claims import machine_claim
from harness.core.outside_text import markdown as escaped
from harness.core.outside_text import markdown_code as code
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.report import formatting, headline
from harness.report.case_changes import CaseRow, case_rows
from harness.report.eligibility import eligibility
from harness.report.pass_rates import scores_by_role
from harness.report.race import race
from harness.report.search import search

SHOWN = 10
"""Largest number of broken cases that are listed. Further ones are only counted."""


def summary(results: Results) -> str:
    """Return the summary as GitHub Markdown. Names, prompts and answers are escaped or written as code."""
    compared = results.choice.variant or headline.highest_pass_rate(results)
    head = headline.headline(results, compared, scores_by_role(results, results.samples))
    run = results.run
    blocks = [f"## {escaped(head.title)}{': ' + code(head.name) if head.name else ''}"]
    blocks += [f"> {escaped(banner)}"] if (banner := formatting.banner(run.model)) else []
    blocks += [f"> {escaped(raced)}"] if (raced := race(results)) else []
    blocks += [f"> {escaped(searched)}"] if (searched := search(results)) else []
    blocks += [f"> {escaped(unfinished)}"] if (unfinished := headline.unfinished(results)) else []
    blocks += [_bullets([head.few])] if head.few else []
    if head.refuted:
        blocks.append("**The confirmation refutes this variant.**\n\n" + _bullets(head.refuted))
    reasons = [*head.missing, *head.reasons, *head.support, *filter(None, [head.cost])]
    if head.cut:
        limit = run.suite.decoding.max_new_tokens
        blocks.append(
            f"**Answers cut at {limit} tokens (`max_new_tokens`) can fail for their length alone:**\n\n"
            + _bullets(head.cut)
        )
    blocks += [_bullets(reasons), escaped(head.confirmation), _roles(head), escaped(head.clustered)]
    blocks += [_next(results)]
    blocks += ["### Variants", _variants(results), _broken(results, compared)]
    machine = machine_claim(run.provenance.machine)
    blocks.append(f"Time and memory {code(machine)}. Repeat the run with {code(run.provenance.command)}.")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _roles(head: headline.Headline) -> str:
    columns = ["Role", *([f"Confirmed {escaped(head.base)}", "Confirmed tuned"] if head.confirmed else [])]
    columns += [escaped(formatting.sentence(head.base)), "Tuned"]
    rows = []
    for row in head.roles:
        late = [row.confirmed_base, row.confirmed] if head.confirmed else []
        rows.append([row.role.value, *(_figure(figure) for figure in (*late, row.base, row.tuned))])
    return _table(columns, rows)


def _figure(figure: headline.Figure) -> str:
    if figure.rate is None or figure.rate.value is None:
        return formatting.ABSENT
    span = f", {figure.span}" if figure.span else ""
    return f"{formatting.percent(figure.rate)} ({formatting.counts(figure.rate)}{span})"


def _variants(results: Results) -> str:
    roles = list(results.base.rates)
    rows = []
    for variant in results.variants:
        eligible = eligibility(results, variant)
        statuses = wording.listed(formatting.status(status) for status in dict.fromkeys(variant.statuses))
        name = f"**{code(variant.name)}**" if variant.name == results.choice.variant else code(variant.name)
        why = escaped(f"{eligible.word}: {eligible.why}")
        rates_ = (formatting.percent(variant.rates.get(role)) for role in roles)
        rows.append([name, statuses, why, *rates_, str(variant.fixed), str(variant.broken)])
    return _table(["Variant", "Status", "Eligible", *(role.value for role in roles), "Fixed", "Broken"], rows)


def _next(results: Results) -> str:
    steps = next_trials.next_steps(results)
    if not steps.any:
        return ""
    lines = [f"- {escaped(steps.nothing.reason)}"] if steps.nothing else []
    lines += [f"- Run {code(steps.nothing.command)}"] if steps.nothing and steps.nothing.command else []
    lines += [f"- {code(trial.name)}: {escaped(trial.reason)}" for trial in steps.trials]
    lines += [f"- In the suite: {escaped(sentence)}" for sentence in steps.suite]
    return "\n".join(["### What to try next", "", *lines])


def _broken(results: Results, compared: str) -> str:
    place = next((n for n, v in enumerate(results.variants) if v.name == compared), None)
    if place is None:
        return ""
    lost = [row for row in case_rows(results) if row.changes[place].kind == "broken"]
    if not lost:
        return f"{code(compared)} broke none of the {len(results.run.suite.of(Split.MAIN))} cases."
    items = "\n".join(f"- {line}" for line in _lines(results, lost[:SHOWN], place))
    more = f"\n- and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    head = f"{wording.plural(len(lost), 'case')} that the base model passes"
    return f"<details><summary>Broken: {head}</summary>\n\n{items}{more}\n\n</details>"


def _lines(results: Results, rows: Sequence[CaseRow], place: int) -> Iterator[str]:
    name = results.variants[place].name
    for row in rows:
        own = (s for s in reducers.scored(results.samples) if (s.variant, s.case) == (name, row.case.id))
        given = next((s for s in own if not s.score.passed), None)
        said = f", answer {code(given.answer.text)}" if given else ""
        head = f"{code(row.case.id)} ({row.case.role.value}), {escaped(row.changes[place].words)}"
        yield f"{head}: prompt {code(row.case.prompt)}{said}"
