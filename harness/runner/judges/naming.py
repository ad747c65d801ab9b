"""Finds the judge of a suite: the one that `--judge` names, or else the suite's own."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from harness.core.errors import ModelError, UsageError
from harness.core.judges import (
    CHARACTERS_PER_TOKEN,
    KEY,
    OPENAI_KEY,
    REPEATED,
    is_loopback,
    title,
    url_problem,
    without_keys,
)
from harness.core.settings import Plan
from harness.core.suite import JudgeRef, Split, Suite
from harness.core.wording import listed, plural
from harness.models.gguf_bases import Conversions
from harness.models.resolving import TRAINED, WHAT_TO_NAME, check_name, resolve
from harness.runner.judges.collecting import judged_cases, questions_about
from harness.runner.request import Request
from harness.scoring import is_only_judged

_OPENAI = "api.openai.com"
SUITES_OWN = "suite"
"""The value of `--judge` that permits the endpoint which the suite names."""


def with_judge(suite: Suite, named: str | None) -> Suite:
    """Return the suite with its judge: the one of `--judge` (MODEL, MODEL@URL or `suite`), or else its own.

    An endpoint that the suite names is asked only if the user permits it, because it gets all answers.

    Raises:
        UsageError: the name is wrong or holds the key, or the suite names an endpoint that was not permitted.
    """
    own = suite.judge
    _check_holds_no_key(named or "")
    if own:
        _check_holds_no_key(f"{own.model}@{own.base_url}")
    if named is None or named == SUITES_OWN:
        if named and not (own and own.model):
            raise UsageError("--judge suite: the suite names no judge", remedy="Name one: --judge MODEL@URL")
        if own and own.base_url and named is None:
            what = f"the suite sends answers to a judge, {title(own)}"
            raise UsageError(what, remedy="If you trust it, pass --judge suite. Else name another: --judge MODEL@URL")
        return suite
    model, base_url = _parts(named)
    return replace(suite, judge=replace(own or JudgeRef(""), model=model, base_url=base_url, digest=""))


def _check_holds_no_key(name: str) -> None:
    """Refuse a judge's name that holds the key of an endpoint: names are shown, stored and sent."""
    if without_keys(name) != name:
        raise UsageError(
            f"the name of the judge holds the key that {KEY} or {OPENAI_KEY} sets",
            remedy="Write the name of the model in its place. If the key is a secret, delete it from suite.yaml and "
            "from the history of your shell.",
        )


_URL = re.compile(r"(.*?)@(https?:.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"(.*?)@?\s*\w*:/")
_ALMOST_URL = re.compile(r"(?:(.*)@)?\s*(?:\w*:/*)?((?:localhost|[\w-]+(?:\.[\w-]+)+|\[[\da-f:]+\])(?::\d+)?(?:/\S*)?)")


def _parts(named: str) -> tuple[str, str]:
    """Return the model's name and the address of its endpoint; empty for a local model."""
    found = _URL.fullmatch(named)
    model, url = (found[1], found[2]) if found else (named, "")
    if url and (problem := url_problem(url)):
        raise UsageError(f"--judge: the address {problem}", remedy=f"Write --judge {model or 'MODEL'}@https://HOST/v1")
    if not model.strip():
        raise UsageError(f"--judge {named}: there is no model", remedy="Write --judge MODEL, or --judge MODEL@URL.")
    if not url:
        _check_local(model)
    return model, url.rstrip("/")


def _check_local(name: str) -> None:
    """Check the name of a local judge, as far as possible without the Hub."""
    almost = _ALMOST_URL.fullmatch(name)
    if almost and ("@" in name or "://" in name):
        address = f"{'http' if almost[2].startswith(('localhost', '127.')) else 'https'}://{almost[2]}"
        address += "" if "/" in almost[2] else "/v1"
        what = f"--judge {name}: this is no address of an endpoint"
        raise UsageError(what, remedy=f"Write --judge {almost[1] or 'MODEL'}@{address}")
    if found := _SCHEME.match(name):
        what = f"--judge {name}: this is no address of an endpoint"
        raise UsageError(what, remedy=f"Write --judge {found[1] or 'MODEL'}@https://HOST/v1")
    with _naming(name):
        check_name(name)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add to an error about a local model that it is the judge, and how a judge behind an endpoint is named."""
    try:
        yield
    except ModelError as error:
        remedy = error.remedy
        if remedy == WHAT_TO_NAME:
            remedy = (
                f"Name an endpoint as --judge MODEL@https://HOST/v1, or {TRAINED}, or a Hub model such as owner/name."
            )
        raise ModelError(f"the judge {name}: {error.message}", remedy=remedy) from None


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


WRITTEN = 40
"""Number of tokens of a reply that is a verdict with a sentence, about."""


def outlook(suite: Suite, plan: Plan) -> str:
    """Say how many questions a run of this grid asks its judge at most, and of how many tokens; empty if none."""
    models, own = len(plan.bases) + len(plan.trials), suite.judge or JudgeRef("")
    if plan.search:
        models = len(plan.bases) + plan.search.trials * len(plan.seeds)
    times = {Split.MAIN: models, Split.CONFIRM: 1 + Request.confirm_seeds}
    most = tokens = longest = answers = 0
    for case in judged_cases(suite):
        asked = questions_about(case, "word " * max(1, suite.decoding.max_new_tokens * CHARACTERS_PER_TOKEN // 5))
        count = times[case.split] * suite.repeats
        answers += count
        most += len(asked) * count
        tokens += sum(question.tokens for question in asked) * count
        longest = max(longest, len(asked))
    if not most:
        return ""
    again = longest * min(REPEATED, answers) * (own.repeats - 1) if own.base_url or not own.model else 0
    read, written = (most + again) * tokens // most, (most + again) * WRITTEN
    repeated = f", {again:,} of them to measure how often the judge contradicts itself" if again else ""
    return (
        f"Grid {plan.grid} asks a judge at most {plural(most + again, 'question')}{repeated}: about {read:,} tokens to "
        f"read and {written:,} to write. Equal answers are judged once."
    )


def prepared(suite: Suite) -> Suite:
    """Check that the suite's judge can be asked, before anything is trained. A local model is found or downloaded.

    Raises:
        HarnessError: there is no such model, or the key would be sent unencrypted.
    """
    own = suite.judge
    if own is None or not own.model or not judged_cases(suite):
        return suite
    if own.base_url:
        key_of(own)
        return suite
    with _naming(own.model):
        found = resolve(own.model, conversions=Conversions())
    if found.shape_only:
        raise UsageError(f"the judge {own.model} has random weights", remedy="Name a trained model with --judge.")
    return replace(suite, judge=replace(own, digest=found.digest))


def notice(suite: Suite) -> str:
    """Say how many cases need a judge, which one will judge them, and what they count for; empty if none does."""
    cases = judged_cases(suite)
    if not cases:
        return ""
    judge, count = suite.judge, len(cases)
    what = f"{plural(count, 'case')} {'has' if count == 1 else 'have'} assertions for a judge"
    if judge is None or not judge.model:
        what += (
            ", and none is named, so these give no score. Name one with --judge; `harness score RUN --judge MODEL` "
            "judges the answers of a finished run."
        )
    else:
        role = "decide like other assertions" if judge.decides else "are shown apart and decide nothing"
        what += f". They are judged by {title(judge)}, and its verdicts {role}."
    return " ".join(filter(None, [what, _uncounted(suite)]))


def _uncounted(suite: Suite) -> str:
    """Say which cases count for no pass rate, because they have only assertions for a judge; empty if none."""
    if suite.judge and suite.judge.decides:
        return ""
    alone = [case for case in suite.cases if is_only_judged(case)]
    if not alone:
        return ""
    roles = Counter(case.role.value for case in alone)
    of = listed(f"{number} {role}" for role, number in roles.items())
    words = f"{plural(len(alone), 'case')} ({of}) {'has' if len(alone) == 1 else 'have'} no other assertions, so "
    words += f"{'it counts' if len(alone) == 1 else 'they count'} for no pass rate"
    objective = [case for case in suite.of(Split.MAIN) if case.role is suite.objective]
    if objective and all(map(is_only_judged, objective)):
        words += f", and without a {suite.objective.value} case no variant can be chosen"
    return f"{words}, unless suite.yaml says `judge: {{decides: true}}`."
