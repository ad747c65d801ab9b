"""Rehearsal: training rows with the base model's own answers, which a training adds so that it forgets less.

The prompts are from a pool that every run shares, or from the suite. The base model answers them once, before anything
is trained. Answers that would teach a bad habit are left out. Each trial draws its rows from the others by its seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.hashing import digest
from harness.core.measurement import PhaseCost
from harness.core.rehearsal_answers import LeftOut
from harness.core.settings import Plan, Quantization, Settings
from harness.core.suite import Decoding, Example, Message
from harness.core.wording import listed, plural

DECODING = Decoding(max_new_tokens=96)
"""How the base model answers: greedily, and with at most 96 tokens, because long rows cost time in every epoch."""
_REASONS = {
    LeftOut.EMPTY: "are empty",
    LeftOut.CUT: "did not end within {} tokens",
    LeftOut.REPEATS: "repeat themselves",
    LeftOut.UNWRITABLE: "cannot be written with the chat template",
}


@dataclass(frozen=True)
class RehearsalRow:
    """A training row whose last message is the base model's own answer."""

    messages: tuple[Message, ...]
    tokens: int
    """Number of tokens of the whole conversation; an estimate if only the worker can read the tokenizer."""

    @property
    def example(self) -> Example:
        return Example(self.messages)


@dataclass(frozen=True)
class RehearsalAnswers:
    """The rows from the answers of the base model in one quantisation."""

    quantization: Quantization
    rows: tuple[RehearsalRow, ...]
    left_out: dict[LeftOut, int]
    """Number of answers that are no rows, by reason."""
    costs: tuple[PhaseCost, ...] = ()
    """What loading the base model and answering took."""
    max_new_tokens: int = DECODING.max_new_tokens
    """The largest number of tokens that an answer could have."""

    @property
    def asked(self) -> int:
        """Number of prompts that the base model was asked."""
        return len(self.rows) + sum(self.left_out.values())

    @property
    def words(self) -> str:
        """A sentence without a full stop."""
        of = f"the base model answered {plural(self.asked, 'rehearsal prompt')}, of which {len(self.rows)} are kept"
        most = self.max_new_tokens
        reasons = listed(f"{count} {_REASONS[reason].format(most)}" for reason, count in self.left_out.items())
        return f"{of}: {reasons}" if reasons else of


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of a run: its prompts, and the base model's answers once they exist."""

    prompts: tuple[str, ...]
    near: int
    """Number of prompts of the pool that are not asked, because a case or a training row has nearly the same prompt."""
    answers: tuple[RehearsalAnswers, ...] = ()
    """One entry for each quantisation in which a variant with rehearsal is trained."""

    def of(self, quantization: Quantization) -> RehearsalAnswers | None:
        """Return the answers in one quantisation; None if they do not exist yet."""
        return next((each for each in self.answers if each.quantization is quantization), None)


def rehearsing(plan: Plan) -> tuple[Quantization, ...]:
    """Return the quantisations in which a plan trains variants with rehearsal."""
    return tuple(dict.fromkeys(v.settings.quantization for v in plan.variants if v.settings.rehearsal))


def fitting(rows: Iterable[RehearsalRow], max_length: int) -> list[RehearsalRow]:
    """Return the rows that `max_length` does not cut. A cut row would not teach the model to stop."""
    return [row for row in rows if row.tokens <= max_length]


def draw(rows: Sequence[RehearsalRow], settings: Settings, seed: int) -> tuple[RehearsalRow, ...]:
    """Return the rehearsal rows of a trial.

    The rows are ordered by a digest of seed and prompt. Under one seed, more rehearsal therefore adds rows and replaces
    none, so that two variants differ only in the number of rows.
    """
    ordered = sorted(fitting(rows, settings.max_length), key=lambda row: place(row.messages[:-1], seed))
    return tuple(ordered[: settings.rehearsal])


def place(messages: tuple[Message, ...], seed: int) -> str:
    """Return a key that orders the prompts under a seed: the trial draws the good answers to the first ones."""
    return digest(["rehearsal", seed, messages])
