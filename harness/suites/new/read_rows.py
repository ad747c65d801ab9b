"""Choose the training rows of a new suite from the rows of a file, and hold rewordings back as `generalise` cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.contamination import prompts_near, words
from harness.core.errors import Place, SuiteError
from harness.core.suite import Example, Message, Suite
from harness.core.wording import listed, plural
from harness.core.yaml import shown
from harness.suites.rows import USUAL, Columns, Layout, Mistake, ReadRows, Records, named, raise_mistakes, read_rows

TOO_LONG = 6000
"""Maximum number of characters of a row. They are about 1,500 tokens, too many to train a 7B model on a T4."""
SHORT = 6
"""Answers with at most this number of words can be right for several questions: "Yes.", "In 1987."."""
MOST_LAYOUTS = 3
"""Number of combinations of columns that are named, for rows that have different ones."""
MOST_HELD_BACK = 40
"""Maximum number of rewordings that are held back."""


@dataclass(frozen=True)
class Rewording:
    """A row that is held back, because it asks the question of the training row `like` in other words."""

    example: Example
    like: Example


@dataclass(frozen=True)
class Rows:
    """Training rows, each with its line in the file, rewordings that are held back, and sentences for the user."""

    examples: tuple[Example, ...]
    notices: tuple[str, ...] = ()
    """How the file was read, and which columns and rows were left out."""
    rewordings: tuple[Rewording, ...] = ()


def parse_rows(data: bytes, file: str, columns: Columns = USUAL) -> Rows:
    """Read the training rows of a new suite from the content of a file.

    Repeated rows are left out. If several rows, or one row, ask a question in several words with the same answer, one
    of the wordings is held back.

    Raises:
        SuiteError: the file holds no rows, a row is incomplete or too long, or a question has two different answers.
    """
    found = read_rows(data, file, columns)
    examples = [Example(tuple(map(_stripped, each.messages)), each.line) for each in found.examples]
    distinct, repeated, mistakes = _distinct(examples, found.records)
    raise_mistakes(found.records, [*found.mistakes, *_too_long(examples), *mistakes])
    if not distinct:
        remedy = "Add rows, each with one question and its answer."
        raise SuiteError("the file holds no rows", remedy=remedy, place=Place(file))
    rewordings = _rewordings(distinct)
    held_back = {id(rewording.example) for rewording in rewordings}
    rows = tuple(example for example in distinct if id(example) not in held_back)
    used = _used(found) if found.records.columns == columns else ()  # a file without header has a notice of its own
    return Rows(rows, (*used, *found.notices, *repeated, *_held_back(rewordings)), rewordings)


def _stripped(message: Message) -> Message:
    return Message(message.role, message.content.strip())


# --- checks ------------------------------------------------------------------------------------------------------


def _distinct(examples: Iterable[Example], records: Records) -> tuple[list[Example], list[str], list[Mistake]]:
    """Return the examples without those that repeat another, a sentence about those, and contradictions."""
    first: dict[tuple[str, ...], Example] = {}
    repeated: list[str] = []
    mistakes: list[Mistake] = []
    unit = records.unit
    for example in examples:
        earlier = first.setdefault(_question(example), example)
        if earlier is example:
            continue
        if words(earlier.messages[-1].content) == words(example.messages[-1].content):
            repeated.append(f"{unit} {example.line} (as {unit} {earlier.line})")
        else:
            message, note = "repeats a question with another answer", f"asked in {unit} {earlier.line}"
            remedy = "A model cannot learn both answers. Remove one row, or change a question by more than punctuation."
            mistakes.append(Mistake(example.line, message, remedy, note=note))
    sentences = [f"Left out, because they repeat another row: {listed(repeated, 3)}."] if repeated else []
    return list(first.values()), sentences, mistakes


def _question(example: Example) -> tuple[str, ...]:
    """Return all messages before the answer, in lower case and without punctuation."""
    return tuple(f"{m.role}: {' '.join(words(m.content))}" for m in example.messages[:-1])


def _too_long(examples: Iterable[Example]) -> Iterator[Mistake]:
    for example in examples:
        if sum(len(message.content) for message in example.messages) > TOO_LONG:
            message = f"has more than {TOO_LONG:,} characters, too many for a small GPU"
            yield Mistake(example.line, message, "Shorten it, or split it into several rows.")


# --- rewordings --------------------------------------------------------------------------------------------------


def _rewordings(examples: Sequence[Example]) -> tuple[Rewording, ...]:
    """Return one row of each question that is asked in several words, unless it is nearly equal to another row."""
    groups: dict[tuple[object, ...], list[Example]] = {}
    for example in examples:
        if len(example.messages) <= 2 or example.messages[-3].role == "system":
            groups.setdefault(_same_answer(example), []).append(example)
    candidates = [(group[-1], group[0]) for group in groups.values() if len(group) > 1][:MOST_HELD_BACK]
    if not candidates:
        return ()
    chosen = {id(example) for example, _ in candidates}
    rest = tuple(example for example in examples if id(example) not in chosen)
    near = prompts_near(Suite("", "", "", (), rest), [example.messages[-2].content for example, _ in candidates])
    return tuple(Rewording(example, like) for example, like in candidates if example.messages[-2].content not in near)


def _same_answer(example: Example) -> tuple[object, ...]:
    """Return what rows have in common that ask the same question in other words.

    Rows with the same long answer do, and wordings that are in one row. A short answer can be right by chance.
    """
    answer = words(example.messages[-1].content)
    system = example.messages[0].content if len(example.messages) > 2 else ""
    return (system, *answer) if len(answer) > SHORT else (system, example.line, *answer)


# --- sentences ---------------------------------------------------------------------------------------------------


def _used(found: ReadRows) -> Iterator[str]:
    """Say which columns are questions and answers, so that a wrong guess is noticed."""
    sentences = list(dict.fromkeys(map(_use, found.layouts)))
    yield from sentences[:MOST_LAYOUTS]
    if len(sentences) > MOST_LAYOUTS:
        yield f"And {len(sentences) - MOST_LAYOUTS} more combinations of columns."


def _use(layout: Layout) -> str:
    if layout.conversation:
        return f"Conversations: column {shown(layout.conversation)}.{_before(layout)}"
    below = f", with {named(layout.contexts)} below them" if layout.contexts else ""
    return f"Questions: column {shown(layout.prompt)}{below}. Answers: column {shown(layout.answer)}.{_before(layout)}"


def _before(layout: Layout) -> str:
    """Name the columns with what comes before the question."""
    system = f" System messages: column {shown(layout.system)}." if layout.system else ""
    return system + (f" Earlier turns: column {shown(layout.history)}." if layout.history else "")


def _held_back(rewordings: Sequence[Rewording]) -> Iterator[str]:
    if rewordings:
        yield (
            f"Held back from training as generalise cases, because another row asks the same in other words: "
            f"{plural(len(rewordings), 'row')}."
        )
