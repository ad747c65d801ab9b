"""What a judge said about the answers, as a table of its own, and in sentences how far the judge can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.core.judges import JudgedRate, Judging, Share, title
from harness.core.run_results import Results
from harness.core.wording import plural
from harness.report import formatting


@dataclass(frozen=True)
class JudgedRow:
    """The verdicts on one variant's answers to the cases of one role."""

    role: str
    variant: str
    rate: str
    interval: str
    difference: str
    """The difference from the base model, in points; empty for the base model."""
    difference_interval: str
    noise: str
    """What the judge's contradictions alone can make of the difference."""
    is_noise: bool
    without: int


@dataclass(frozen=True)
class Judged:
    """The section of the page about a judge."""

    judge: str
    sentences: tuple[str, ...]
    rows: tuple[JudgedRow, ...]


def judged(results: Results) -> Judged | None:
    """Return the section, or None if no judge was asked."""
    found = results.judging
    if found is None:
        return None
    return Judged(
        title(found.judge),
        (f"Its verdicts are opinions of a model, and they {_counts(found)}.", *_measured(found)),
        tuple(_row(rate, found) for rate in found.rates),
    )


def sentences(found: Judging) -> Iterator[str]:
    """Say who judged and what the verdicts count for, how far to trust the judge, what it cost, and what is missing."""
    yield f"Judged by {title(found.judge)}, a model: its verdicts are opinions, and they {_counts(found)}."
    yield from _measured(found)


def _counts(found: Judging) -> str:
    return "count like other assertions, as the suite says" if found.judge.decides else "decide nothing"


def _measured(found: Judging) -> Iterator[str]:
    if found.contradictions:
        yield (
            f"It judged {plural(found.contradictions.of, 'answer')} {found.judge.repeats} times: two of its verdicts "
            f"on the same answer differ with a chance of {_share(found.contradictions)}."
        )
    elif not found.judge.base_url:
        yield "It runs on this machine and decodes greedily, so that the same answer always gets the same verdict."
    else:
        yield "How often it contradicts itself was not measured."
    if found.agreement:
        yield (
            f"It agrees with the plain assertions of the same case on {_share(found.agreement)} of "
            f"{plural(found.agreement.of, 'answer')}."
        )
    else:
        yield "No answer has both a verdict and plain assertions, so nothing shows whether the judge is right."
    noisy = [rate for rate in found.rates if _is_noise(rate, found)]
    for role in dict.fromkeys(rate.role for rate in noisy):
        names = [f"`{rate.variant}`" for rate in noisy if rate.role is role]
        few = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield (
            f"On {role.value} cases, its contradictions alone can make a larger difference than that between the base "
            f"model and {few}."
        )
    for reason, count in found.absent.items():
        yield f"{plural(count, 'answer')} without a verdict: {reason}."
    yield f"Cost: {found.cost}."


def _is_noise(rate: JudgedRate, found: Judging) -> bool:
    """Whether there is a difference, and contradictions that were seen can make a larger one."""
    return rate.is_noise and bool(rate.points) and found.contradictions is not None and found.contradictions.value > 0


def _row(rate: JudgedRate, found: Judging) -> JudgedRow:
    share = None if rate.total == 0 else rate.passed / rate.total
    known = rate.points is not None and rate.points_low is not None and rate.points_high is not None
    return JudgedRow(
        role=rate.role.value,
        variant=rate.variant,
        rate=formatting.ABSENT if share is None else f"{share:.0%} ({rate.passed}/{rate.total})",
        interval="" if rate.low is None or rate.high is None else f"{rate.low:.0%} to {rate.high:.0%}",
        difference=f"{rate.points:+.0f}" if known else "",
        difference_interval=f"{rate.points_low:+.0f} to {rate.points_high:+.0f}" if known else "",
        noise=f"±{rate.noise:.0f}" if rate.noise is not None and known else "",
        is_noise=_is_noise(rate, found),
        without=rate.without,
    )


def _share(share: Share) -> str:
    return f"{share.value:.0%} (95% interval {share.low:.0%} to {share.high:.0%})"
