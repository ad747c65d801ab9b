"""Finds the judge of a suite: the one that `--judge` names, or else the suite's own."""

from __future__ import annotations

import os
from dataclasses import replace
from urllib.parse import urlsplit

from harness.core.errors import UsageError
from harness.core.judges import KEY, OPENAI_KEY, REPEATED, is_loopback, title, url_problem
from harness.core.settings import Plan
from harness.core.suite import JudgeRef, Suite
from harness.core.wording import plural
from harness.models.gguf_bases import Conversions
from harness.models.resolving import resolve
from harness.scoring import Need, needs
from harness.scoring.registry import judge_questions

_OPENAI = "api.openai.com"
SUITES_OWN = "suite"
"""The value of `--judge` that permits the endpoint which the suite names."""


def with_judge(suite: Suite, named: str | None) -> Suite:
    """Return the suite with its judge: the one of `--judge` (MODEL, MODEL@URL or `suite`), or else its own.

    An endpoint that the suite names is asked only if the user permits it, because it gets all answers.

    Raises:
        UsageError: the name is wrong, or the suite names an endpoint that was not permitted.
    """
    own = suite.judge
    if named is None or named == SUITES_OWN:
        if named and not (own and own.model):
            raise UsageError("--judge suite: the suite names no judge", remedy="Name one: --judge MODEL@URL")
        if own and own.base_url and named is None:
            what = f"the suite sends answers to a judge, {title(own)}"
            raise UsageError(what, remedy="If you trust it, pass --judge suite. Else name another: --judge MODEL@URL")
        return suite
    model, _, url = named.partition("@http")
    base_url = _checked(f"http{url}") if url else ""
    if not model:
        raise UsageError(f"--judge {named}: there is no model", remedy="Write --judge MODEL, or --judge MODEL@URL.")
    return replace(suite, judge=replace(own or JudgeRef(""), model=model, base_url=base_url, digest=""))


def _checked(url: str) -> str:
    if problem := url_problem(url):
        raise UsageError(f"--judge: the address {problem}", remedy="Write --judge MODEL@https://HOST/v1")
    return url.rstrip("/")


def key_of(judge: JudgeRef) -> str:
    """Return the key of a judge's endpoint from the environment; empty if there is none.

    Raises:
        UsageError: the key cannot be sent, or would be sent unencrypted to another machine.
    """
    parts, name = urlsplit(judge.base_url), KEY
    key = os.environ.get(KEY, "").strip()
    if not key and parts.hostname == _OPENAI:
        name = OPENAI_KEY
        key = os.environ.get(OPENAI_KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        what = f"the key in {name} holds a line break, a control character or one outside ASCII"
        raise UsageError(what, remedy=f"Copy the key again, and set {name} to it alone.")
    if key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        what = f"the key in {name} would be sent to {parts.netloc} without encryption"
        raise UsageError(what, remedy=f"Use an address that begins with https://, or unset {name}.")
    return key


def permitted(suite: Suite) -> str | None:
    """Return the value of `--judge` for a command that asks nobody, so that it need not permit the suite's endpoint."""
    return SUITES_OWN if suite.judge and suite.judge.model else None


def outlook(suite: Suite, plan: Plan) -> str:
    """Say how many questions a run asks its judge at most; empty if none."""
    cases = [case for case in suite.cases if needs(case.assertions, Need.JUDGE)]
    own = suite.judge
    if not cases or own is None or not own.model:
        return notice(suite)
    models = len(plan.trials) + len(plan.bases)
    most = sum(judge_questions(case.assertions) for case in cases) * models * suite.repeats
    again = min(REPEATED, len(cases) * models) * (own.repeats - 1) if own.base_url else 0
    return (
        f"Judge {title(own)}: at most {most + again:,} questions, since equal answers are judged once. {notice(suite)}"
    )


def prepared(suite: Suite) -> Suite:
    """Check that the suite's judge can be asked, before anything is trained. A local model is found or downloaded.

    Raises:
        HarnessError: there is no such model, or the key would be sent unencrypted.
    """
    if suite.judge is None or not suite.judge.model or not judged_cases(suite):
        return suite
    if suite.judge.base_url:
        key_of(suite.judge)
        return suite
    return replace(
        suite, judge=replace(suite.judge, digest=resolve(suite.judge.model, conversions=Conversions()).digest)
    )


def judged_cases(suite: Suite) -> int:
    """Return the number of cases that have an assertion for a judge."""
    return sum(needs(case.assertions, Need.JUDGE) for case in suite.cases)


def notice(suite: Suite) -> str:
    """Say how many cases need a judge, and which one will judge them; empty if none does."""
    count = judged_cases(suite)
    if not count:
        return ""
    judge = suite.judge
    what = f"{plural(count, 'case')} {'has' if count == 1 else 'have'} assertions for a judge"
    if judge is None or not judge.model:
        return (
            f"{what}, and none is named, so these give no score. Name one with --judge; `harness score RUN --judge "
            "MODEL` judges the answers of a finished run."
        )
    role = "decide like other assertions" if judge.decides else "are shown apart and decide nothing"
    return f"{what}. They are judged by {title(judge)}, and its verdicts {role}."
