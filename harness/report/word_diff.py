"""Word-by-word difference between two answers: the words that were added, and the words that are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.core.outside_text import visible

LONGEST = 1_200
"""Two texts are not compared if one of them has more characters than this."""
ALIKE = 0.3
"""If two texts have a smaller share of their words in common, no word is marked, because nearly all would be."""
_WORD = re.compile(r"\S+\s*|^\s+")


@dataclass(frozen=True)
class Piece:
    """Consecutive words of a text that are all marked as different, or all unmarked."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class WordDiff:
    """The later text in pieces, and the positions (from 0) of the words that only the earlier text has."""

    new: tuple[Piece, ...]
    dropped: tuple[int, ...]


def word_diff(old: str, new: str) -> WordDiff:
    """Compare two texts word by word, by their longest common subsequence.

    Nothing is marked if the texts have few words in common (see `ALIKE`), or if one is longer than `LONGEST`.
    """
    before, after = split(old), split(new)
    unmarked = WordDiff((Piece(visible(new)),), ())
    if max(len(old), len(new)) > LONGEST or not before or not after:
        return unmarked
    from rapidfuzz.distance import LCSseq

    blocks = LCSseq.opcodes(_stripped(before), _stripped(after))
    kept = sum(block.src_end - block.src_start for block in blocks if block.tag == "equal")
    if kept < ALIKE * max(len(before), len(after)):
        return unmarked
    added = {n for block in blocks if block.tag != "equal" for n in range(block.dest_start, block.dest_end)}
    dropped = [n for block in blocks if block.tag != "equal" for n in range(block.src_start, block.src_end)]
    return WordDiff(marked(after, added), tuple(dropped))


def marked(words: Sequence[str], positions: Iterable[int]) -> tuple[Piece, ...]:
    """Join words into pieces, and mark the words at these positions."""
    chosen = frozenset(positions)
    kinds = groupby(range(len(words)), key=chosen.__contains__)
    return tuple(Piece("".join(words[n] for n in run), is_marked) for is_marked, run in kinds)


def split(text: str) -> list[str]:
    """Split a text into words, each with the white space after it. `page.js` splits texts by the same rule."""
    return _WORD.findall(visible(text))


def _stripped(words: Sequence[str]) -> list[str]:
    return [word.strip() for word in words]
