"""Which words a tuned answer has that the base's has not, and which it lacks: what a reader's eye should find first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.words import visible

LONGEST = 1_200
"""Characters beyond which nobody compares word by word."""
ALIKE = 0.3
"""Below this share of common words everything is new, and marking everything marks nothing."""
_WORD = re.compile(r"\S+\s*|^\s+")


@dataclass(frozen=True)
class Piece:
    text: str
    marked: bool = False


@dataclass(frozen=True)
class Difference:
    """The new text in pieces, and which words of the old one (counted from 0) it has not."""

    new: tuple[Piece, ...]
    dropped: tuple[int, ...]


def difference(old: str, new: str) -> Difference:
    """The longest common run of words stays unmarked; texts that share little, or are long, have no marks at all."""
    before, after = split(old), split(new)
    nothing = Difference((Piece(visible(new)),), ())
    if max(len(old), len(new)) > LONGEST or not before or not after:
        return nothing
    from rapidfuzz.distance import LCSseq

    blocks = LCSseq.opcodes(_bare(before), _bare(after))
    kept = sum(block.src_end - block.src_start for block in blocks if block.tag == "equal")
    if kept < ALIKE * max(len(before), len(after)):
        return nothing
    added = {n for block in blocks if block.tag != "equal" for n in range(block.dest_start, block.dest_end)}
    dropped = [n for block in blocks if block.tag != "equal" for n in range(block.src_start, block.src_end)]
    return Difference(marked(after, added), tuple(dropped))


def marked(words: Sequence[str], which: Iterable[int]) -> tuple[Piece, ...]:
    """Neighbouring words of a kind become one piece."""
    chosen = frozenset(which)
    kinds = groupby(range(len(words)), key=chosen.__contains__)
    return tuple(Piece("".join(words[n] for n in run), is_marked) for is_marked, run in kinds)


def split(text: str) -> list[str]:
    """Words, each with the white space behind it, as the page's script splits the same text."""
    return _WORD.findall(visible(text))


def _bare(words: Sequence[str]) -> list[str]:
    return [word.strip() for word in words]
