"""Rungs to what a reader wants to know: which assertion changes first at which stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.records import Answer, Assertion, Case, Parity, Rung, Score, Stage, Turn, Verdicts

_LEGEND = """\
passed: assertions; changed: decided otherwise than by the first stage; largest, mean: how far a logit is from the
stage above, as a share of the largest logit; next token: how often both find the same one likeliest; prompts alike:
those that the GGUF's own tokenizer cuts as the run's did"""
Scorer = Callable[[Case, Answer], Score]


def judged(rung: Rung, cases: Sequence[Case], score: Scorer) -> Verdicts:
    """A stage's answers by the suite's assertions."""
    passed = [verdict for case, given in zip(cases, rung.answers, strict=True) for verdict in _each(case, given, score)]
    texts = tuple(given.text for given in rung.answers)
    return Verdicts(rung.stage, tuple(passed), texts, rung.distance, rung.tokenised_alike)


def _each(case: Case, given: Answer, score: Scorer) -> list[bool | None]:
    """One per assertion; judging ends at one that cannot be decided, and what is behind it is not known either."""
    checks = score(case, given).checks
    known = [None if check.score is None else check.passed for check in checks]
    return [*known, *[None] * (len(case.assertions) - len(known))]


def assertions_of(cases: Sequence[Case]) -> tuple[tuple[str, str], ...]:
    return tuple((case.id, _name(assertion)) for case in cases for assertion in case.assertions)


def _name(assertion: Assertion) -> str:
    value = "" if assertion.value is None else f" {assertion.value!r}"
    return f"{assertion.name}{value}"


def turns(assertions: Sequence[tuple[str, str]], stages: Sequence[Verdicts]) -> tuple[Turn, ...]:
    """For each assertion that any stage decides otherwise than the first one: where that is first so."""
    found = []
    for number, (case, name) in enumerate(assertions):
        verdicts = [stage.passed[number] for stage in stages]
        first = next((at for at, verdict in enumerate(verdicts) if verdict != verdicts[0]), None)
        if first is not None:
            back = verdicts[-1] == verdicts[0]
            found.append(Turn(case, name, stages[first].stage, verdicts[0], verdicts[first], back))
    order = list(Stage)
    return tuple(sorted(found, key=lambda turn: order.index(turn.stage)))


def table(parity: Parity) -> str:
    """What a terminal shows."""
    rows = [["stage", "passed", "changed", "largest", "mean", "next token", "prompts alike"]]
    rows += [_row(parity, verdicts) for verdicts in parity.stages]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    said = [_line(turn) for turn in parity.turns] or ["No assertion changes."]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, _LEGEND, "", *said])


def _row(parity: Parity, verdicts: Verdicts) -> list[str]:
    changed = sum(a != b for a, b in zip(verdicts.passed, parity.stages[0].passed, strict=True))
    far, alike = verdicts.distance, verdicts.tokenised_alike
    return [
        verdicts.stage,
        f"{sum(bool(passed) for passed in verdicts.passed)}/{len(verdicts.passed)}",
        str(changed),
        *([f"{far.largest:.1e}", f"{far.mean:.1e}", f"{far.agreement:.2%}"] if far else ["", "", ""]),
        "" if alike is None else f"{alike}/{len(parity.cases)}",
    ]


def _line(turn: Turn) -> str:
    word = {True: "passes", False: "fails", None: "cannot be decided"}
    back = " (the last stage decides it as the first)" if turn.back else ""
    return f"{turn.stage}: {turn.case}: {turn.assertion} {word[turn.after]}{back}"
