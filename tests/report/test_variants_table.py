"""Tests of the report's table of variants."""

from __future__ import annotations

from dataclasses import replace

from harness.core.run_results import LossVerdict
from harness.core.turn_tokens import CutRows, Part, PartKind, TurnTokens, View
from harness.report import render
from harness.report.variants_table import columns, rows
from tests.support.report_runs import run_and_page

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_every_variant_is_a_row() -> None:
    """The table has a row for the base model and for every variant; a variant's row gives its status in words."""
    made, page = run_and_page()
    shown = page.id("variants").all("tbody")[0].all("tr")
    assert len(shown) == 1 + len(made.variants)
    for row, variant in zip(shown[1:], made.variants, strict=True):
        assert variant.name in row.text
        assert variant.statuses[0].value in row.text.lower()


def test_cut_rows_are_a_column_if_there_are_any() -> None:
    """If some `max_length` cuts training rows, each variant has their number and the number of lost ends."""
    made, _ = run_and_page()
    settings = made.variants[0].settings
    assert settings is not None
    size = settings.max_length
    tokens = TurnTokens(2, "</s>", (2,), named=True, behind=0, cuts=(CutRows(size, 30, 4, 3),))
    cut = replace(made, run=replace(made.run, tokens=tokens))
    titles = [column.title for column in columns(cut)]
    cell = rows(cut, {})[1].cells[titles.index("Rows cut")]
    assert (cell.text, cell.under) == ("4 of 30", "3 without their end")
    assert "Rows cut" not in [column.title for column in columns(made)]


def test_the_page_shows_a_row_and_a_case_as_the_model_gets_them() -> None:
    """Below the table, the first training row and the first case are shown in parts, with the notices about tokens."""
    made, _ = run_and_page()
    parts = (Part(PartKind.GIVEN, "Hi\n<|assistant|>", (1, 2)), Part(PartKind.TRAINED, "\x1bHello</s>", (3,)))
    tokens = TurnTokens(2, "</s>", (2,), named=False, behind=0, views=(View("training row 7", parts),))
    text = render(replace(made, run=replace(made.run, tokens=tokens)), now="")
    assert "training row 7: 3 tokens" in text
    assert "Hi\\n&lt;|assistant|&gt;" in text
    assert "‹ESC›Hello&lt;/s&gt;" in text
    assert "closes each answer with &lt;/s&gt;" in text


def test_what_decides_comes_first() -> None:
    """Eligibility, net loss and the pass rates that decide come first; settings, which names repeat, come later."""
    made, _ = run_and_page()
    titles = [column.title.split(" (")[0] for column in columns(made)]
    assert titles[:5] == ["Eligible", "Net loss", "generalise", "retain", "avoid"]
    groups = list(dict.fromkeys(column.group for column in columns(made)))
    assert groups.index("Settings that differ") > groups.index("Compared with the base")


def test_a_certain_loss_has_its_own_sign() -> None:
    """A net loss that is shown has another sign than one of which the cases cannot tell."""
    made, _ = run_and_page()
    first = made.variants[0]
    assert first.loss
    signs = {}
    for verdict in LossVerdict:
        loss = replace(first.loss, points=46.1, verdict=verdict)
        found = replace(made, variants=(replace(first, loss=loss), *made.variants[1:]))
        signs[verdict] = rows(found, {})[1].cells[1].text
    assert signs == {LossVerdict.KEEPS: "46.1", LossVerdict.CANNOT_TELL: "? 46.1", LossVerdict.LOSES: "✗ 46.1"}
