"""The handout: one printed page about a run, for the participants of a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.analysis.next_trials import next_steps
from harness.analysis.recommendation import recommend
from harness.core import training_script
from harness.core.run_results import Outcome, Results
from harness.core.settings import AXES
from harness.report import formatting, headline
from harness.report.charts import memory_fit
from harness.report.charts.drawing import Chart
from harness.report.first_screen import FirstScreen, first_screen
from harness.report.headline import Excerpt

PROMPTS = 3
"""Number of prompts that are shown before and after training."""
LONGEST = 120
"""Longest answer on the page, in characters."""
SETTINGS = {
    "learning_rate": "how far a training step changes the adapter",
    "epochs": "how often every training row is used",
    "rank": "size of the adapter",
    "alpha": "strength of the adapter, divided by the rank",
    "target_modules": "parts of the model that get an adapter",
}
"""What settings mean that a newcomer does not know, in few words."""


@dataclass(frozen=True)
class Handout:
    """Content of the handout."""

    results: Results
    now: str
    title: str
    name: str
    first: FirstScreen
    words: tuple[tuple[str, str], ...]
    """The words of the page, each with its meaning."""
    excerpts: tuple[Excerpt, ...]
    script: str
    """Python code of the settings, without the rows that rehearsal adds; empty if they are not recommended."""
    longest: int
    """Number of characters in the longest line of the code, which is the least width of its columns in print."""
    rehearsal: bool
    """Whether these settings add rows to the training data."""
    fits: Chart | None
    """For a model with random weights: which trainings fit in memory."""
    limits: tuple[str, ...]
    """What may not be concluded."""


def handout(results: Results, now: str) -> Handout:
    """Return the content of the handout. `now` is the time of writing."""
    shape = results.run.model.shape_only
    best = None if shape else headline.chosen(results)
    compared = best.name if best else headline.highest_pass_rate(results)
    shown = next((v for v in results.variants if v.name == compared), None)
    first = first_screen(results, best, shown, next_steps(results))
    advice = recommend(results)
    script = (
        training_script.script(best.settings, results.run.provenance.machine, best.seeds[0])
        if best and best.settings and advice.script
        else ""
    )
    return Handout(
        results=results,
        now=now,
        title=f"{results.run.suite.name} · {results.run.model.name}",
        name=best.name if best else "",
        first=first,
        words=(*first.words, *_words(first, best)),
        excerpts=() if shape else _both_ways(headline.excerpts(results, compared)),
        script=script,
        longest=max(map(len, script.splitlines()), default=0),
        rehearsal=bool(best and best.settings and best.settings.rehearsal),
        fits=memory_fit.memory_fit(results) if shape else None,
        limits=tuple(_limits(results)),
    )


def _words(first: FirstScreen, best: Outcome | None) -> Iterator[tuple[str, str]]:
    if first.tiles:
        yield "points", "percent of the cases that the base passes"
    if best:
        yield from ((AXES[name].title.lower(), meaning) for name, meaning in SETTINGS.items() if name in best.differs)


def _both_ways(found: tuple[Excerpt, ...]) -> tuple[Excerpt, ...]:
    """Return three examples: two cases that were gained and one that was lost, if there are such."""
    gained = [each for each in found if each.tuned_passed]
    lost = [each for each in found if not each.tuned_passed]
    chosen = [*gained[: PROMPTS - min(1, len(lost))], *lost][:PROMPTS]
    return tuple(
        replace(each, prompt=_short(each.prompt), base=_short(each.base), tuned=_short(each.tuned)) for each in chosen
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _limits(results: Results) -> list[str]:
    run, found = results.run, [formatting.banner(results.run.model)]
    if run.model.shape_only:
        return [*filter(None, found), "The weights were random: nothing here says how well a model learns or answers."]
    found.append(
        f"The settings were tried on {run.model.name} with the suite {run.suite.name}. Other models and other data "
        "learn and forget differently."
    )
    if len(run.plan.seeds) == 1:
        found.append("One training seed was tried. Another one may learn less or forget more.")
    found.append(
        "A share of passed cases is not the quality of every answer: read the answers of your own model before you use "
        "it."
    )
    return [sentence for sentence in found if sentence]
