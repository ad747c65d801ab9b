"""Chart of which trainings fit in GPU memory, by rank, batch size and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.claims import machine_claim
from harness.core.measurement import GIB, Phase
from harness.core.outside_text import visible
from harness.core.run_results import Outcome, Results
from harness.core.settings import Settings
from harness.core.training_outcome import Status
from harness.report.charts.drawing import CHOSEN, INK, Chart, DataTable, configured, either, faceted, layered, svg

ID = "boundary"
NONE = "✖"
CELL, ROW = (42, 27), 24
"""Widths of a cell on a wide and on a narrow screen, and its height, in pixels."""
_TITLE = 100
"""Space that an axis title such as "tokens per row" needs, in pixels."""


@dataclass(frozen=True)
class _Training:
    """The training of one variant."""

    name: str
    settings: Settings
    reserved: float | None
    """Reserved GPU memory in GiB; None if the training ran out of memory."""
    predicted: bool

    @property
    def shown(self) -> str:
        if self.reserved is not None:
            return f"{self.reserved:.1f}"
        return "out of memory (predicted)" if self.predicted else "out of memory"


def memory_fit(results: Results) -> Chart | None:
    """Draw the chart. Return None if there are no GPU figures, or if every training fitted in memory.

    A model with random weights gets the chart even if every training fitted, because its answers mean nothing.
    """
    trainings = _trainings(results.variants)
    crossed = any(each.reserved is None for each in trainings)
    if not any(each.reserved is not None for each in trainings) or not (crossed or results.run.model.shape_only):
        return None
    predicted = any(each.predicted for each in trainings)
    return Chart(
        id=ID,
        title="Which trainings fit in memory, by rank, length and batch size",
        description=(
            "One panel per rank. Each cell is a training, by rows per batch (upwards) and tokens per row (to the "
            "right). Its number is the peak memory that PyTorch reserved, in GiB: the largest, if several trainings "
            f"share the cell. {NONE}: ran out of memory"
            f"{', or in brackets: is predicted to, and was not run' if predicted else ''}. "
            f"Figures {machine_claim(results.run.provenance.machine)}."
        ),
        svg=svg(_spec(trainings, CELL[0], columns=2), ID),
        narrow=svg(_spec(trainings, CELL[1], columns=1), f"{ID}-narrow"),
        table=_table(trainings),
    )


def _trainings(variants: Sequence[Outcome]) -> tuple[_Training, ...]:
    """Return the training of each variant of which it is known whether it fits in memory."""
    found = []
    for variant in variants:
        train = variant.cost(Phase.TRAIN)
        short = Status.OUT_OF_MEMORY in variant.statuses
        reserved = train.peak().value / GIB if train and train.on_gpu else None
        if variant.settings and (short or reserved is not None):
            found.append(_Training(variant.name, variant.settings, None if short else reserved, any(variant.predicted)))
    return tuple(found)


def _cells(trainings: Sequence[_Training]) -> dict[tuple[int, int, int], float | None]:
    """Return the largest reserved memory by rank, batch size and length; None where a training did not fit."""
    cells: dict[tuple[int, int, int], float | None] = {}
    for each in trainings:
        place = (each.settings.rank, each.settings.batch_size, each.settings.max_length)
        before = cells.get(place, 0.0)
        cells[place] = None if before is None or each.reserved is None else max(before, each.reserved)
    return cells


def _foretold(trainings: Sequence[_Training]) -> frozenset[tuple[int, int, int]]:
    """Return the cells in which no training was run: it was predicted to run out of memory."""
    places = {True: set[tuple[int, int, int]](), False: set[tuple[int, int, int]]()}
    for each in trainings:
        places[each.predicted].add((each.settings.rank, each.settings.batch_size, each.settings.max_length))
    return frozenset(places[True] - places[False])


def _spec(trainings: Sequence[_Training], width: int, columns: int) -> dict[str, Any]:
    import altair as alt

    cells, foretold = _cells(trainings), _foretold(trainings)
    rows = [
        {"panel": f"rank {rank}", "batch": batch, "length": length, "fits": size is not None,
         "label": (f"({NONE})" if (rank, batch, length) in foretold else NONE) if size is None else f"{size:.1f}"}
        for (rank, batch, length), size in cells.items()
    ]  # fmt: skip
    ranks, batches, lengths = (sorted({place[part] for place in cells}) for part in range(3))
    # Every panel repeats the axis titles, which must not overlap the next panel's.
    title = "tokens per row" if width * len(lengths) >= _TITLE else "tokens"
    x = alt.X("length:O", sort=lengths, axis=alt.Axis(title=title, labelAngle=-45, grid=True, tickBand="extent"))
    rows_title = "rows per batch" if ROW * len(batches) >= _TITLE else "batch"
    y = alt.Y("batch:O", sort=batches[::-1], axis=alt.Axis(title=rows_title, grid=True, tickBand="extent"))
    base = alt.Chart().encode(x=x.scale(alt.Scale(domain=lengths)), y=y.scale(alt.Scale(domain=batches[::-1])))
    shade = base.mark_rect(opacity=0.16).encode(color=alt.ColorValue(**either("datum.fits", CHOSEN, INK)))
    words = base.mark_text(color=INK, fontSize=12 if columns > 1 else 11).encode(text=alt.Text("label:N"))
    panel = layered(shade, words, width=width * len(lengths), height=ROW * len(batches))
    return configured(faceted(panel, rows, [f"rank {rank}" for rank in ranks], columns=columns, spacing=22))


def _size(training: _Training) -> tuple[int, int]:
    settings = training.settings
    return settings.rank, settings.batch_size * settings.max_length


def _table(trainings: Sequence[_Training]) -> DataTable:
    return DataTable(
        ("Rank", "Batch", "Length", "Accumulation", "Optimizer", "Reserved (GiB)", "Variant"),
        tuple(
            (
                str(each.settings.rank), str(each.settings.batch_size), str(each.settings.max_length),
                str(each.settings.gradient_accumulation), each.settings.optimizer, each.shown,
                visible(each.name),
            )
            for each in sorted(trainings, key=_size)
        ),
    )  # fmt: skip
