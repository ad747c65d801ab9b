"""Format values for the report: numbers with units, statuses, dates."""

from __future__ import annotations

import hashlib
import re

from markupsafe import Markup, escape

from harness.core.measurement import Measurement, Phase, PhaseCost
from harness.core.model import ModelRef
from harness.core.outside_text import visible
from harness.core.quantities import quantity
from harness.core.scores import Rate
from harness.core.suite import Role
from harness.core.training_outcome import Status

ALLOCATOR = "PyTorch's allocator"
"""What the table of variants and the memory chart measure on a GPU; the whole GPU also holds the CUDA context."""
ABSENT = "–"
UNBROKEN = 18
"""Longest word, in characters, that a heading on a phone has room for without a break."""

ROLES = {
    Role.LEARN: "what the training rows teach",
    Role.GENERALISE: "what the training rows teach, in other words",
    Role.RETAIN: "what the base can do and must still do",
    Role.AVOID: "what the tuned model must not start to do",
}
"""What each role tests, in few words."""
PHASES = {
    Phase.LOAD: "Load the base model",
    Phase.REHEARSE: "Base model answers rehearsal prompts",
    Phase.ANSWER_BEFORE: "Base model answers",
    Phase.TRAIN: "Train",
    Phase.ANSWER_AFTER: "Tuned model answers",
}
ENDED = {
    Status.DIVERGED: "diverged",
    Status.OUT_OF_MEMORY: "ran out of memory",
    Status.TIMED_OUT: "timed out",
    Status.FAILED: "failed",
    Status.CANCELLED: "was cancelled or not started",
    Status.STOPPED: "was stopped in a race",
}
"""How a training that did not succeed ended, as the end of a sentence such as "The training timed out"."""
TOY = "Toy model ({size} parameters). Shows how to read a report. Do not copy these settings to another model."


def with_code(text: str) -> Markup:
    """Return a sentence as HTML in which the parts between backticks are code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def unbroken(name: str) -> Markup:
    """Return a name as HTML in which short words with a hyphen, such as `lr=1e-3`, are not broken at it."""
    words = str(escape(visible(name))).split(" ")
    return Markup(" ".join(f'<span class="whole">{w}</span>' if "-" in w and len(w) <= UNBROKEN else w for w in words))


def anchor(case: str) -> str:
    """Return the name of a case in the address of the page (`#case=NAME`).

    It is the id of the case. If a URL cannot hold the id, it is a cleaned id with a hash.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", case).strip("-")[:60]
    if plain == case:
        return case
    return f"{plain}-{hashlib.sha256(case.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


# --- numbers -----------------------------------------------------------------------------------------------------


def percent(rate: Rate | None) -> str:
    return ABSENT if rate is None or rate.value is None else f"{100 * rate.value:.0f}%"


def counts(rate: Rate | None) -> str:
    return "no answer scored" if rate is None or not rate.total else f"{rate.passed} of {rate.total}"


def measured(figure: Measurement | None) -> str:
    return quantity(figure) if figure else ABSENT


def batch(cost: PhaseCost) -> str:
    """Name the batch that a memory peak belongs to, if several models shared it: `batch of 13 models`; else empty."""
    return f"batch of {cost.models} models" if cost.models > 1 else ""


def parameters(count: int) -> str:
    """Write a number of parameters with three significant digits: `407 k`, `1.24 B`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count) if count else ABSENT


def number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def within_sentence(name: str) -> str:
    """Write the title of a setting within a sentence: lower case, except for names such as `rsLoRA`."""
    return name if sum(map(str.isupper, name)) > 1 else name.lower()


def moment(stamp: str) -> str:
    """Write an ISO time as date, hour and minute: `2026-01-02 03:24 UTC`. Other texts are returned unchanged."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::[\d.]+)?(Z|\+00:00)?(.*)$", stamp)
    return f"{found[1]} {found[2]}{' UTC' if found[3] else ''}{found[4]}" if found else stamp


def banner(model: ModelRef) -> str:
    """Return what may and may not be concluded from results of this model; empty if there is nothing to say."""
    return _toy_banner(model) if model.toy else model.note


def _toy_banner(model: ModelRef) -> str:
    size = re.search(r"\b\d+(?:\.\d+)?\s?M\b", model.note)
    return TOY.format(size=size[0] if size else "7M")


def status(value: Status) -> str:
    return value.value.capitalize()


def sentence(name: str) -> str:
    """Return a name with a capital letter, to begin a heading with it."""
    return name[:1].upper() + name[1:]


def commit(given: str, *, changed: bool) -> str:
    """Return the git commit of the harness for a table; `given` is empty if it does not run from a git repository."""
    return (given or "none (not run from a git checkout)") + (" with uncommitted changes" if changed else "")
