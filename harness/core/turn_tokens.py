"""What a model's chat template makes of a suite: how turns end, how the model is asked, and which rows are cut."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.hashing import digest
from harness.core.wording import plural


@dataclass(frozen=True)
class CutRows:
    """The number of training rows that a `max_length` cuts, of `rows`."""

    max_length: int
    rows: int
    cut: int
    endless: int
    """Number of the cut rows that lose the end of an answer, so that they do not teach the model to stop."""

    @property
    def words(self) -> str:
        """A sentence without a full stop; empty if no row is cut."""
        if not self.cut:
            return ""
        of = f"max_length {self.max_length} cuts {self.cut:,} of {plural(self.rows, 'training row')}"
        return f"{of}; {self.endless:,} of them lose the end of an answer and do not teach the model to stop"


class PartKind(StrEnum):
    """What happens to the tokens of a part of a conversation."""

    GIVEN = "given"
    """Tokens of a training row without labels."""
    TRAINED = "trained"
    """Tokens with labels: the assistant's."""
    CUT = "cut"
    """Tokens behind `max_length`."""
    ASKED = "asked"
    """Tokens of a prompt."""


@dataclass(frozen=True)
class Part:
    """Consecutive tokens of one kind."""

    kind: PartKind
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A training row or a case as the model gets it."""

    name: str
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        return sum(len(part.ids) for part in self.parts)


@dataclass(frozen=True)
class TurnTokens:
    """How a model's chat template closes the assistant's turns, and how it opens them."""

    end: int
    """Id of the token that closes each turn of the assistant."""
    end_text: str
    ends: tuple[int, ...]
    """Ids of all tokens at which generation stops."""
    named: bool
    """Whether the model's configuration or its tokenizer names `end` as an end token."""
    behind: int
    """Number of tokens that the template writes behind `end`. They have no labels."""
    opening: str = ""
    """The text before each answer that the template writes in training rows only, such as an empty think block. The
    model is asked with it, too. Empty if there is none."""
    left_out: str = ""
    """The text before each answer that the template writes in prompts only. The model is asked without it."""
    from_row: bool = False
    """Whether the model is asked with the text before the answer in a row, not with the template's prompt."""
    short: bool = False
    """Whether the whitespace at the end of that text is left out, because the tokenizer joins it with the answer."""
    cuts: tuple[CutRows, ...] = ()
    """One entry for each `max_length` of the grid."""
    views: tuple[View, ...] = ()
    """The first training row and the first case, as the model gets them."""

    @property
    def key(self) -> str:
        """A digest for the keys of the cache; empty for models whose rows and answers are those of the first version.

        In the first version, generation stopped only at the ends that the configuration names, tokens behind the end
        had labels, and every prompt was the template's own.
        """
        if self.named and not (self.behind or self.from_row or self.short):
            return ""
        return digest([self.end, self.named, self.behind, self.opening, self.left_out, self.from_row, self.short])

    def cut(self, max_length: int) -> CutRows | None:
        """Return the numbers for one `max_length`; None if the grid does not have it."""
        return next((each for each in self.cuts if each.max_length == max_length), None)

    @property
    def deviations(self) -> tuple[str, ...]:
        """Sentences for the user about all that differs from what the configuration and the template's prompts say."""
        found = []
        if not self.named:
            found.append(
                f"The chat template closes each answer with {self.end_text}, which the model's configuration does not "
                "name as an end token. Generation of the base model and of every variant stops at it, too."
            )
        if self.opening:
            found.append(
                f"The chat template writes {_quoted(self.opening)} before each answer of a training row, but not into "
                "prompts. The model is asked with it, so that it is asked as it was trained."
            )
        if self.left_out:
            found.append(
                f"The chat template writes {_quoted(self.left_out)} into prompts, but not before the answers of "
                "training rows. The model is asked without it, so that it is asked as it was trained."
            )
        return tuple(found)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user: the deviations, and a warning for each `max_length` that cuts rows."""
        remedy = "Raise max_length in the grid, or shorten the rows."
        return (*self.deviations, *(f"Warning: {cut.words}. {remedy}" for cut in self.cuts if cut.cut))


def token_key(tokens: TurnTokens | None) -> str:
    """Return the key of tokens for the cache. If only the worker can read the tokenizer, the key is a fixed one."""
    return "read by the worker" if tokens is None else tokens.key


def _quoted(text: str) -> str:
    return repr(text)
