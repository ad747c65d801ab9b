"""The cases that a page of a run holds as compressed data, read as the page's script reads them."""

from __future__ import annotations

from harness.report.formatting import anchor
from tests.studies.recompute import CaseRecord, case_records
from tests.support.parsed_html import Element


def records(page: Element) -> list[CaseRecord]:
    """Return every case in the data of a page."""
    return case_records(page)


def record_of(page: Element, case: str) -> CaseRecord:
    """Return the case with this id."""
    [found] = [record for record in records(page) if record.head["anchor"] == anchor(case)]
    return found
