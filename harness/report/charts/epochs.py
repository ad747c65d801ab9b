"""Chart of the pass rates after every epoch, and lists of when each case was learned or lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.outside_text import visible
from harness.core.run_results import Results, Timeline
from harness.core.suite import Role
from harness.core.wording import plural
from harness.report.charts.drawing import BAD, CHOSEN, GOOD, INK, Chart, DataTable, configured, faceted, part, svg
from harness.report.formatting import percent

_ROLE_COLOURS = {"learn": CHOSEN, "generalise": GOOD, "retain": INK, "avoid": BAD}
_DASHES = {"learn": [1, 0], "generalise": [6, 2], "retain": [2, 2], "avoid": [8, 3, 2, 3]}


def timelines(results: Results) -> Chart | None:
    """Draw pass rates by role after every epoch, one panel per variant; None if the run had no `--timeline`."""
    if not results.timelines:
        return None
    numbers = {variant.name: n for n, variant in enumerate(results.variants, 1)}
    rows = [row for timeline in results.timelines for row in _epochs(results, timeline, numbers)]
    names = [visible(f"#{numbers.get(t.variant, 0)} {t.variant}") for t in results.timelines]
    return Chart(
        id="timeline",
        title="When behaviours are learned and lost: pass rate by role after every epoch",
        description=(
            "One panel per variant, over all its seeds; epoch 0 is the base model. Once the learn and generalise lines "
            "have stopped rising, further epochs gain nothing and can lower the retain and avoid lines."
        ),
        svg=svg(_epochs_spec(rows, names, 3), "timeline"),
        narrow=svg(_epochs_spec(rows, names, 1), "timeline-narrow"),
        table=_epochs_table(results),
    )


def _epochs(results: Results, timeline: Timeline, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    panel = visible(f"#{numbers.get(timeline.variant, 0)} {timeline.variant}")
    base = results.base_beside(timeline.variant)
    points = [(0.0, base.rates), *((e.epoch, e.rates) for e in timeline.epochs)]
    return [
        {"panel": panel, "epoch": epoch, "role": role.value, "share": 100 * rate.value}
        for epoch, rates in points
        for role, rate in rates.items()
        if rate.value is not None
    ]


def _epochs_spec(rows: Sequence[dict[str, Any]], names: Sequence[str], columns: int) -> dict[str, Any]:
    import altair as alt

    roles = [role.value for role in Role if any(row["role"] == role.value for row in rows)]
    legend = alt.Legend(title=None, orient="top", labelColor=INK, labelFontSize=12, symbolStrokeColor=INK)
    colours = alt.Scale(domain=roles, range=[_ROLE_COLOURS[role] for role in roles])
    dashes = alt.Scale(domain=roles, range=[_DASHES[role] for role in roles])
    percents = alt.Axis(title=None, values=[0, 50, 100], labelExpr="datum.value + '%'")
    lines = (
        alt.Chart(width=300, height=110)
        .mark_line(strokeWidth=1.8, point={"size": 22, "filled": True})
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1, tickCount=6, grid=False)),
            y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 104]), axis=percents),
            color=alt.Color("role:N", scale=colours, legend=legend),
            strokeDash=alt.StrokeDash("role:N", scale=dashes, legend=legend),
        )
    )
    return configured(faceted(part(lines), rows, names, columns=columns, spacing=18))


def _epochs_table(results: Results) -> DataTable:
    roles = [role for role in Role if role in results.base.rates]
    rows = [
        (t.variant, f"{e.epoch:g}", *(percent(e.rates.get(role)) for role in roles))
        for t in results.timelines
        for e in t.epochs
    ]
    return DataTable(("Variant", "Epoch", *(role.value for role in roles)), tuple(rows))


@dataclass(frozen=True)
class Milestones:
    """How many epochs were enough for a variant, and when it learned and lost cases, in words."""

    variant: str
    enough: str
    learned: tuple[str, ...]
    lost: tuple[str, ...]


def milestones(results: Results) -> tuple[Milestones, ...]:
    """Return the milestones of each variant that was evaluated after every epoch, the best variant first."""
    order = sorted(results.timelines, key=lambda t: t.variant != results.choice.variant)
    return tuple(
        Milestones(
            timeline.variant,
            f"{timeline.enough:g}" if timeline.enough is not None else "",
            _when([(m.learned, m.case) for m in timeline.milestones]),
            _when([(m.lost, m.case) for m in timeline.milestones]),
        )
        for timeline in order
    )


def _when(found: Sequence[tuple[float | None, str]]) -> tuple[str, ...]:
    """List cases by epoch: `epoch 2: 14 cases (learn-price-1, learn-name-1, learn-use-2, …)`."""
    epochs = sorted({epoch for epoch, _ in found if epoch is not None})
    own = {epoch: [case for at, case in found if at == epoch] for epoch in epochs}
    return tuple(
        f"epoch {epoch:g}: {plural(len(cases), 'case')} ({', '.join(cases[:3])}{', …' if len(cases) > 3 else ''})"
        for epoch, cases in own.items()
    )
