"""From a row of any form to the messages of a training row: pairs, Alpaca, SQuAD, ShareGPT, ChatML, TRL's forms."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import Place, SuiteError
from harness.core.suite import Message
from harness.core.yaml import as_written, nearest, shown
from harness.suites.case_files import parse_json
from harness.suites.forms import in_turn
from harness.suites.rows.answers import of_answers, rates_answers
from harness.suites.rows.columns import CHOICES, NOT_TRAINED, Layout, is_bad
from harness.suites.rows.records import Columns, RowError, has_content, named

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant"),
}
"""Roles of ChatML and ShareGPT, and other programs' names for them."""
TOOL_ROLES = frozenset({"tool", "function", "function_call", "function-call", "observation", "tool_call", "ipython"})
MOST_TEXT = 10_000_000
"""Largest number of characters of all wordings of one question, each with its context."""
PAIR_KEYS = {"input", "output"}
"""Keys of a question with its answer in a conversation (Capybara)."""
MISSING = frozenset({
    "#N/A", "#NV", "#REF!", "#BEZUG!", "#VALUE!", "#WERT!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#ZAHL!",
    "#SPILL!", "#CALC!", "nan", "NaN", "<NA>",
})  # fmt: skip
"""What spreadsheets and pandas write into a cell without a value."""
TRAINED_IF_TRUE = frozenset({"weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_weight"})
"""Keys of a message that say whether it is trained; `mask` says the opposite."""
BYTES = re.compile(r"<\d+ bytes>")
"""What stands for a cell of a Parquet file that is no text."""
ROLE_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text", "parts")
AS_TEXT = re.compile(r"\s*\[?\s*\{\s*['\"](text|role|from|content|value)['\"]\s*:")
"""The beginning of a list or mapping that a program wrote as text into a cell of a table."""
AS_JSONL = 'Save the rows as JSONL instead. In pandas: to_json("rows.jsonl", orient="records", lines=True).'
NOT_CONVERSATION = 'Write it as a list of messages: [{"role": "user", "content": "..."}, ...].'
ORDER = "Remove this row, or order its messages: an optional system message, then user and assistant in turn."


@dataclass
class Counts:
    """What is left out of rows: values by column, keys of messages, further answers, whole rows."""

    columns: Counter[str] = field(default_factory=Counter)
    message_keys: Counter[str] = field(default_factory=Counter)
    further_answers: int = 0
    without_roles: int = 0
    """Conversations whose texts do not say who speaks."""
    incomplete: int = 0
    empty: int = 0


def conversations_of(
    cells: Mapping[str, Any], layout: Layout, columns: Columns, counts: Counts
) -> list[tuple[Message, ...]]:
    """Return the conversations of a row: several if the question has several wordings, none if the row is empty.

    Texts are returned as they are in the file, with white space at both ends.

    Raises:
        RowError: the row is incomplete, or holds what cannot be trained.
    """
    before = [*_system(cells, layout), *_history(cells, layout, columns, counts)]
    found = [_spoken(cells, layout, counts)] if layout.conversation else _pairs(cells, layout, counts)
    _check_trainable(cells, layout, columns)
    for name in layout.rest:
        if has_content(cells.get(name)):
            counts.columns[name] += 1
    return [_in_order(before, messages) for messages in found]


def _check_trainable(cells: Mapping[str, Any], layout: Layout, columns: Columns) -> None:
    for name, why in layout.not_trained:
        if has_content(cells.get(name)) and cells[name] not in ("[]", "{}", "null"):
            choices = [other for other, reason in layout.not_trained if reason == CHOICES]
            remedy = _chosen(choices, columns) if why == CHOICES else without(name, columns)
            raise RowError(f"has {shown(name)}: {why}", remedy)
    for name in layout.rest:
        if is_bad(name, cells.get(name)):
            said = str(as_written(cells[name])).strip().lower()
            raise RowError(f"{shown(name)} is {said}, which marks a bad answer", without(name, columns))


def check_cells(cells: Mapping[str, Any], layout: Layout) -> None:
    """Refuse cells of a table into which a program wrote a list or mapping as text, such as pandas with `to_csv`."""
    for name in (layout.prompt, layout.answer, *layout.contexts):
        if isinstance(text := cells.get(name), str) and AS_TEXT.match(text):
            raise RowError(f"{name}: holds a list or mapping as text: {shown(text)}", AS_JSONL)


def without(name: str, columns: Columns) -> str:
    """Return the remedy for a column that cannot be used."""
    if columns.has_options:
        option = f"--leave-out {shlex.quote(name)}"
        return f"If the answers are right without it, leave it out with {option}. Otherwise remove these rows."
    return f"If the answers are right without it, remove {shown(name)} from the file. Otherwise remove these rows."


def _chosen(names: Sequence[str], columns: Columns) -> str:
    """Return the remedy for rows with choices in these columns."""
    if columns.has_options:
        what = "the column" if len(names) == 1 else "these columns"
        then = f"leave {what} out with {' '.join(f'--leave-out {shlex.quote(name)}' for name in names)}"
    else:
        then = f"remove {named(names)}"
    return f"Write the choices into the question, and the text of the right one as the answer. Then {then}."


def _in_order(before: list[Message], messages: list[Message]) -> tuple[Message, ...]:
    if before and messages and messages[0].role == "system":
        if before[0] == messages[0]:
            messages = messages[1:]
        elif before[0].role == "system":
            raise RowError("has two different system messages", "Remove one of them, or the row.")
        else:
            before, messages = [messages[0], *before], messages[1:]
    found = [*before, *messages]
    try:
        in_turn(found, "assistant")
    except ValueError as problem:
        raise RowError(str(problem).partition("\n")[0], ORDER) from None
    return tuple(found)


# --- pairs -------------------------------------------------------------------------------------------------------


def _pairs(cells: Mapping[str, Any], layout: Layout, counts: Counts) -> list[list[Message]]:
    """Return a conversation for each wording of the question; none if the row is empty or says so of a part of it."""
    _check_lists(cells.get(layout.prompt), cells.get(layout.answer), layout)
    for name in (layout.prompt, layout.answer, *layout.contexts):
        if isinstance(text := cells.get(name), str) and text.strip() in MISSING:
            what = f"{name}: holds {shown(text.strip())}, which programs write where a value is missing"
            raise RowError(what, "Fill it in, or remove the row.")
        if isinstance(text, str) and BYTES.fullmatch(text):
            raise RowError(f"{name}: holds bytes and no text", f"Write {shown(name)} as text, or remove the row.")
    further = counts.further_answers
    answer = _answer(layout.answer, cells.get(layout.answer), counts)
    if counts.further_answers > further and (which := next((n for n in layout.rest if rates_answers(n, cells)), None)):
        what = f"has several answers, and {shown(which)} may say which of them is right"
        raise RowError(what, f"Write the right one as the answer, and remove {shown(which)}.")
    questions = _questions(cells, layout, counts)
    if answer is None or cells.get(layout.prompt) == []:
        counts.incomplete += 1
        return []
    is_answered = any(message.content.strip() for message in answer)
    if not questions and not is_answered:
        counts.empty += 1
        return []
    if not questions or not is_answered:
        missing = "answer" if questions else "question"
        raise RowError(f"has no {missing}", "Fill it in, or remove the row.")
    # Preferences on the Hub often repeat the question at the beginning of the answer's messages.
    if answer[: len(questions[0])] == questions[0]:
        return [answer]
    return [[*question, *answer] for question in questions]


def _check_lists(questions: Any, answers: Any, layout: Layout) -> None:
    """Refuse a row with several questions and several answers, unless its columns say that these are alternatives."""
    are_lists = all(isinstance(value, list) and not _is_messages(value) for value in (questions, answers))
    if not are_lists or layout.has_wordings:
        return
    if len(set(map(str, questions))) > 1 and len(set(map(str, answers))) > 1:
        raise RowError(
            f"has {len(questions):,} questions and {len(answers):,} answers, and it is not known which belong together",
            'Write each question with its answer into a row of its own: {"question": "...", "answer": "..."}.',
        )


def _questions(cells: Mapping[str, Any], layout: Layout, counts: Counts) -> list[list[Message]]:
    """Return the messages before the answer for each wording of the question, with its context; none if it is blank."""
    given = cells.get(layout.prompt)
    if isinstance(given, dict) and _is_messages(given.get("messages")):  # preferences as OpenAI takes them
        _check_keys(1, "user", given, ("messages",), counts)
        given = given["messages"]
    context = [text for name in layout.contexts for text in _context(name, cells.get(name)) if text.strip()]
    if isinstance(given, list) and _is_messages(given):
        *earlier, last = _messages(given, counts)
        return [[*earlier, Message(last.role, _below(last.content, context))]]
    wordings = [wording for wording in _wordings(layout.prompt, given) if wording.strip()]
    if len(wordings) * sum(map(len, context)) > MOST_TEXT:
        raise RowError(f"has {len(wordings):,} wordings of a long question", "Split it into several rows.")
    if not wordings and context:  # rows of Alpaca whose instruction is in the input
        wordings, context = context[:1], context[1:]
    return [[Message("user", _below(wording, context))] for wording in wordings]


def _context(name: str, value: Any) -> list[str]:
    """Return the texts of a context: one, or several passages."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    if isinstance(value, list) and all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in value):
        titles = [each["title"] if isinstance(each.get("title"), str) else "" for each in value]
        return ["\n".join(filter(None, (title, each["text"]))) for title, each in zip(titles, value, strict=True)]
    return [_text(name, value)]


def _wordings(name: str, value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return list(dict.fromkeys(value))
    return [_text(name, value)]


def _below(question: str, context: list[str]) -> str:
    """Put texts that a question is about below it, after an empty line."""
    return "\n\n".join((question.strip(), *(text.strip() for text in context))) if context else question


def _answer(name: str, value: Any, counts: Counts) -> list[Message] | None:
    """Return the messages of an answer; None if the row says that there is none, as in SQuAD 2."""
    if _is_messages(value):
        return list(_messages(value, counts))
    value = of_answers(name, value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        distinct = list(dict.fromkeys(value))
        counts.further_answers += len(distinct) > 1
        return [Message("assistant", distinct[0])] if distinct else None
    return [Message("assistant", _text(name, value))]


def _text(name: str, value: Any) -> str:
    """Return a cell as text: numbers as they are spelt, nothing as an empty text."""
    written = as_written(value)
    if written is None or isinstance(written, str):
        return written or ""
    inside = written[0] if isinstance(written, list) and len(written) == 1 else written
    alone = next((inside[key] for key in ("value", "text") if isinstance(inside, dict) and inside.get(key)), None)
    text = alone if isinstance(alone, str) else json.dumps(written, ensure_ascii=False)
    remedy = f"Write it as text: {json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}"
    if len(remedy) > 300:
        remedy = 'Write it as text, with \\" for each quote inside.'
    raise RowError(f"{name}: expected text, found a {'mapping' if isinstance(written, dict) else 'list'}", remedy)


def _system(cells: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    value = cells.get(layout.system) if layout.system else None
    if isinstance(value, dict) and "parts" in value:  # Gemini
        value = _content(1, value["parts"])
    text = _text(layout.system, value) if layout.system else ""
    if text.strip():
        yield Message("system", text)


def _history(cells: Mapping[str, Any], layout: Layout, columns: Columns, counts: Counts) -> Iterator[Message]:
    """Yield the earlier turns of a row: pairs of question and answer (LLaMA-Factory), or messages."""
    value = cells.get(layout.history) if layout.history else None
    if not has_content(value) or value in ("[]", "None", "null"):
        return
    if _is_messages(value):
        yield from _messages(list(value or ()), counts)
        return
    is_pairs = isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value
    )
    if not is_pairs:
        what = f"{layout.history}: expected a list of pairs [question, answer]"
        raise RowError(what, without(str(layout.history), columns))
    for question, answer in value or ():
        yield from (Message("user", question), Message("assistant", answer))


# --- messages ----------------------------------------------------------------------------------------------------


def _spoken(cells: Mapping[str, Any], layout: Layout, counts: Counts) -> list[Message]:
    name = str(layout.conversation)
    value = cells.get(name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value)
    if isinstance(value, str):
        raise RowError(f"{name}: expected a list of messages, found {shown(value)}", AS_JSONL)
    if not isinstance(value, list):
        raise RowError(f"{name}: expected a list, found {shown(value)}", NOT_CONVERSATION)
    if not value:
        raise RowError(f"{name}: is empty", "Remove this row.")
    if all(isinstance(each, str) for each in value):
        counts.without_roles += 1
        value = [{"role": ("user", "assistant")[number % 2], "content": each} for number, each in enumerate(value)]
    return list(_messages(value, counts))


def _parsed(text: str) -> Any:
    """Return the list that a cell of a table holds as JSON; the text itself if it is not valid."""
    try:
        return parse_json(text, Place(""))
    except SuiteError:
        return text


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and any(key in each for key in ROLE_KEYS) for each in value)
    )


def _messages(value: list[Any], counts: Counts) -> Iterator[Message]:
    for number, each in enumerate(value, 1):
        if not isinstance(each, dict):
            raise RowError(f"message {number} is not a mapping with role and content", NOT_CONVERSATION)
        if each.keys() >= PAIR_KEYS and _first(each, ROLE_KEYS) is None:
            yield from _turn(number, each, counts)
            continue
        message = _message(number, each, counts)
        if message.role == "system" and not message.content.strip():
            continue  # many programs write an empty system message where there is none
        if not message.content.strip():
            raise RowError(f"message {number} is empty", "Fill it in, or remove this row.")
        yield message


def _turn(number: int, given: dict[str, Any], counts: Counts) -> Iterator[Message]:
    """Yield the question and the answer of one entry of a conversation."""
    _check_keys(number, "assistant", given, ("input", "output"), counts)
    for key, role in (("input", "user"), ("output", "assistant")):
        text = _content(number, given[key])
        if not text.strip():
            raise RowError(f"message {number} has no {key}", "Fill it in, or remove this row.")
        yield Message(role, text)


def _message(number: int, given: dict[str, Any], counts: Counts) -> Message:
    role_key, text_key = _first(given, ROLE_KEYS), _first(given, TEXT_KEYS)
    if role_key is None:
        raise RowError(f"message {number} has no role", 'Add "role": "user" or "role": "assistant".')
    role = _role(number, given[role_key])
    if len(given) > 2 or text_key is None:
        _check_keys(number, role, given, (role_key, text_key), counts)
    return Message(role, _content(number, given[text_key]) if text_key else "")


def _first(given: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """Return the first of these keys that has a value."""
    for key in keys:
        if given.get(key) is not None:
            return key
    return None


def _check_keys(number: int, role: str, given: dict[str, Any], used: tuple[str | None, ...], counts: Counts) -> None:
    """Count the further keys of a message that are left out.

    Raises:
        RowError: one of them changes what the message means, or that it is trained.
    """
    for key, value in given.items():
        if key in used or not has_content(value):
            continue
        if key in NOT_TRAINED:
            raise RowError(f"message {number} has {shown(key)}: {NOT_TRAINED[key]}", "Remove this row.")
        if role == "assistant" and is_bad(key, value):
            remedy = f"Remove this row or, if the answer is right, the key {shown(key)}."
            raise RowError(f"message {number} has {shown(key)}, which marks a bad answer", remedy)
        is_excluded = value in (0, "0", False) if key in TRAINED_IF_TRUE else key == "mask" and value in (1, "1", True)
        if key not in TRAINED_IF_TRUE and key != "mask":
            counts.message_keys[key] += 1
        elif is_excluded and role == "assistant":  # no other message is trained anyway
            what = f"message {number} is excluded from training by {shown(key)}, and every answer is trained here"
            raise RowError(what, f"Remove the key {shown(key)} to train the answer, or remove this row.")


def _role(number: int, given: Any) -> str:
    name = given.strip().lower() if isinstance(given, str) else ""
    if name in ROLES:
        return ROLES[name]
    if name in TOOL_ROLES:
        what = f"message {number} is from {shown(given)}: {NOT_TRAINED['tools']}"
        raise RowError(what, "Remove this row.")
    remedy = nearest(name, ("system", "user", "assistant"))
    raise RowError(f"message {number} has the unknown role {shown(given)}", remedy)


def _content(number: int, value: Any) -> str:
    """Return the text of a message. If it is a list of parts that are all text, each is on lines of its own."""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    written = as_written(value)
    if isinstance(written, str):
        return written
    raise RowError(f"message {number} holds something other than text", "Remove this row, or write its text.")
