"""Shows training rows and cases as the model gets them: which tokens are trained, cut or asked."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from harness.core.suite import Case, Example
from harness.core.turn_tokens import Part, PartKind, View
from harness.models.conversation_tokens import IGNORED, Row
from harness.models.tokenizer_files import TokenizerFiles


def view_row(found: TokenizerFiles, example: Example, row: Row, max_length: int) -> View:
    """Show a training row. `row` has its full length, of which training gets `max_length` tokens."""
    kinds = (
        PartKind.CUT if at >= max_length else PartKind.GIVEN if label == IGNORED else PartKind.TRAINED
        for at, label in enumerate(row.labels)
    )
    return View(example.name, _parts(found, zip(kinds, row.input_ids, strict=True)))


def view_case(found: TokenizerFiles, case: Case, asked: Iterable[int]) -> View:
    """Show the prompt of a case. `asked` are its tokens."""
    return View(f"case {case.id} ({case.role})", _parts(found, ((PartKind.ASKED, token) for token in asked)))


def _parts(found: TokenizerFiles, tokens: Iterable[tuple[PartKind, int]]) -> tuple[Part, ...]:
    grouped = [(kind, tuple(token for _, token in some)) for kind, some in groupby(tokens, key=lambda pair: pair[0])]
    decode = found.conversations.vocabulary.decode
    return tuple(Part(kind, decode(ids), ids) for kind, ids in grouped)
