"""Which answers of the base model would be bad training rows in a rehearsal, and why.

Notebooks contain this module, so it imports little.
"""

from __future__ import annotations

import re
from enum import StrEnum

from harness.core.answers import Answer

_SEQUENCE = 4
"""Length in words of the sequences that are counted to find repetition."""
_MOST = 2
"""How often such a sequence, or the same word in a row, may occur."""
_WORD = re.compile(r"\w+")


class LeftOut(StrEnum):
    """Why an answer of the base model is not used as a training row."""

    EMPTY = "empty"
    CUT = "cut"
    REPEATS = "repeats"
    UNWRITABLE = "unwritable"


def fault(answer: Answer) -> LeftOut | None:
    """Return why an answer would be a bad training row; None if it is a good one."""
    if not answer.text.strip():
        return LeftOut.EMPTY
    if answer.truncated:
        return LeftOut.CUT
    return LeftOut.REPEATS if repeats_itself(answer.text) else None


def repeats_itself(text: str) -> bool:
    """Whether a text rambles: a sequence of four words, or one word in a row, occurs more than twice."""
    words = _WORD.findall(text.casefold())
    pieces = [tuple(words[at : at + _SEQUENCE]) for at in range(len(words) - _SEQUENCE + 1)]
    if any(pieces.count(piece) > _MOST for piece in set(pieces)):
        return True
    in_a_row = zip(*(words[start:] for start in range(_MOST + 1)), strict=False)
    return any(len(set(same)) == 1 for same in in_a_row)
