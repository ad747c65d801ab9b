"""Chart of the trainings that fit in memory, by rank, length and batch, and of those that ran out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.claims import machine_claim
from harness.core.measurement import GIB, Phase
from harness.core.results import Outcome, Results
from harness.core.settings import Settings
from harness.core.training import Status
from harness.report.charts import CHOSEN, INK, Chart, DataTable, configured, data, svg
from harness.report.words import visible

ID = "boundary"
NONE = "✖"
CELL, ROW = (42, 27), 24
"""Widths of a cell on a wide and on a narrow screen, and its height, in pixels."""
_TITLE = 100
"""Width of the text "tokens of a row", in pixels."""


@dataclass(frozen=True)
class _Tried:
    name: str
    settings: Settings
    reserved: float | None
    """GiB; None where it ran out of memory."""
    predicted: bool

    @property
    def told(self) -> str:
        if self.reserved is not None:
            return f"{self.reserved:.1f}"
        return "out of memory (predicted)" if self.predicted else "out of memory"


def boundary(results: Results) -> Chart | None:
    """Draw the chart; None if no GPU ran, or if everything fitted and the model's answers mean something."""
    tried = _tried(results.variants)
    crossed = any(each.reserved is None for each in tried)
    if not any(each.reserved is not None for each in tried) or not (crossed or results.run.model.shape_only):
        return None
    predicted = any(each.predicted for each in tried)
    return Chart(
        id=ID,
        title="Which trainings fit: rank, length and batch",
        description=(
            "A panel for each rank. A cell is a training on so many rows at once (upwards), cut at so many tokens "
            "(to the right). Its number is the most that torch reserved, in GiB, and of several trainings the largest; "
            f"{NONE} ran out of memory{', or is predicted to' if predicted else ''}. What fits ends between the two. "
            f"Figures {machine_claim(results.run.provenance.machine)}."
        ),
        svg=svg(_spec(tried, CELL[0], columns=2), ID),
        narrow=svg(_spec(tried, CELL[1], columns=1), f"{ID}-narrow"),
        table=_table(tried),
    )


def _tried(variants: Sequence[Outcome]) -> tuple[_Tried, ...]:
    """The variants of which it is known whether they fit."""
    found = []
    for variant in variants:
        train = variant.cost(Phase.TRAIN)
        short = Status.OUT_OF_MEMORY in variant.statuses
        reserved = train.peak().value / GIB if train and train.on_gpu else None
        if variant.settings and (short or reserved is not None):
            found.append(_Tried(variant.name, variant.settings, None if short else reserved, any(variant.predicted)))
    return tuple(found)


def _cells(tried: Sequence[_Tried]) -> dict[tuple[int, int, int], float | None]:
    """Largest memory by rank, batch and length; None if one of the trainings did not fit."""
    cells: dict[tuple[int, int, int], float | None] = {}
    for each in tried:
        place = (each.settings.rank, each.settings.batch_size, each.settings.max_length)
        before = cells.get(place, 0.0)
        cells[place] = None if before is None or each.reserved is None else max(before, each.reserved)
    return cells


def _spec(tried: Sequence[_Tried], width: int, columns: int) -> dict[str, Any]:
    import altair as alt

    cells = _cells(tried)
    rows = [
        {"panel": f"rank {rank}", "batch": batch, "length": length, "fits": size is not None,
         "label": NONE if size is None else f"{size:.1f}"}
        for (rank, batch, length), size in cells.items()
    ]  # fmt: skip
    ranks, batches, lengths = (sorted({place[part] for place in cells}) for part in range(3))
    # Every panel repeats the axis's title, which must not run into its neighbour's.
    title = "tokens of a row" if width * len(lengths) >= _TITLE else "tokens"
    x = alt.X("length:O", sort=lengths, axis=alt.Axis(title=title, labelAngle=-45, grid=True, tickBand="extent"))
    y = alt.Y("batch:O", sort=batches[::-1], axis=alt.Axis(title="rows at once", grid=True, tickBand="extent"))
    base = alt.Chart(data(rows)).encode(
        x=x.scale(alt.Scale(domain=lengths)), y=y.scale(alt.Scale(domain=batches[::-1]))
    )
    shade = base.mark_rect(opacity=0.16).encode(color=alt.condition("datum.fits", alt.value(CHOSEN), alt.value(INK)))
    words = base.mark_text(color=INK, fontSize=12 if columns > 1 else 11).encode(text="label:N")
    facet = alt.Facet(
        "panel:N", sort=[f"rank {rank}" for rank in ranks], title=None,
        header=alt.Header(labelAnchor="start", labelFontSize=12, labelPadding=4),
    )  # fmt: skip
    panel = (shade + words).properties(width=width * len(lengths), height=ROW * len(batches))
    return configured(panel.facet(facet, columns=columns, spacing=22))


def _table(tried: Sequence[_Tried]) -> DataTable:
    return DataTable(
        ("Rank", "Batch", "Length", "Accumulation", "Optimizer", "Reserved (GiB)", "Variant"),
        tuple(
            (
                str(each.settings.rank), str(each.settings.batch_size), str(each.settings.max_length),
                str(each.settings.gradient_accumulation), each.settings.optimizer, each.told,
                visible(each.name),
            )
            for each in sorted(tried, key=lambda t: (t.settings.rank, t.settings.batch_size * t.settings.max_length))
        ),
    )  # fmt: skip
