"""Turns conversations into tokens, and holds what training and asking have in common.

For every training row and every prompt:

- The labels are the assistant's tokens. They end with the token that closes the turn, and hold no token behind it.
- Generation stops at that token.
- The tokens with which the model is asked are a prefix of the row in which it learns the answer.
- The rendered text holds every message.

What a template breaks and the harness cannot mend is refused, with the reason. TRL finds the assistant's tokens by
`{% generation %}` marks in the chat template, which most templates lack, or by splitting a row into prompt and
completion, which allows only one answer. Here, each assistant message is found by rendering the conversation up to the
message, and including it. In a row with one answer, the labels are those of TRL's prompt/completion rows, except that
those have labels behind the end of the turn, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from harness.core.errors import ModelError, SuiteError
from harness.core.limited_process import Refused
from harness.core.suite import Example, Message
from harness.core.turn_tokens import TurnTokens
from harness.models.chat_templates import ChatTemplate

IGNORED = -100
"""The label of a token that has no loss (PyTorch's cross entropy skips it)."""
_PROBE = "The-answer-of-a-probe"
"""An answer without whitespace at its ends, to find what the template writes before and behind an answer."""
_PROBES = ("Hello there.", "42", "{")
"""Answers that begin with a letter, a digit and a sign, to compare the tokens of rows and prompts."""
_COMPARED = 40
"""Number of characters with which the beginning of an answer is looked for in its labels."""
_QUESTION = (Message("user", "Hello"),)
_NO_SYSTEM = (
    "Write the system message (of a row, or `system_prompt` in suite.yaml) into the first user message, or take a "
    "model whose chat template has system messages."
)
_SYSTEM = "Put a system message before it: in every row of the training data, and as `system_prompt` in suite.yaml."
_TURNS = "Let user and assistant alternate, after at most one system message."


@dataclass(frozen=True)
class Row:
    """One training row: token ids, and for each the label to predict or `IGNORED`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        """Number of tokens with a label."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def end(self) -> int:
        """Number of tokens up to the last one that has a label."""
        return next((at for at in range(len(self.labels), 0, -1) if self.labels[at - 1] != IGNORED), 0)


@dataclass(frozen=True)
class Vocabulary:
    """What is needed of a tokenizer."""

    encode: Callable[[Sequence[str]], list[list[int]]]
    """Return the token ids of each text, without special tokens around them."""
    text: Callable[[int], str]
    """Return the text of a token."""
    decode: Callable[[Sequence[int]], str]
    """Return the text of several tokens, with the special ones."""
    added: frozenset[int]
    """Ids of the tokens that are found in a text before it is divided: the special tokens and others that were added,
    except those of whitespace and the one for unknown text."""
    ends: frozenset[int]
    """Ids of the end tokens that the model's configuration and the tokenizer name."""


class _Ask(Enum):
    """How a prompt is rendered. Values: (whether from a row with an answer, whether trailing whitespace is cut)."""

    PROMPT = (False, False)
    SHORT_PROMPT = (False, True)
    ROW = (True, False)
    SHORT_ROW = (True, True)


@dataclass(frozen=True)
class _Form:
    """What the template writes around an answer."""

    ask: _Ask = _Ask.PROMPT
    opening: str = ""
    left_out: str = ""
    end: int | None = None
    behind: int = 0
    fault: str = ""
    """Why no end was found: the predicate of a sentence about the template."""
    remedy: str = ""
    """What to change in the template: the beginning of a sentence."""


class Conversations:
    """The conversations of one model: its chat template and its tokenizer. Rendering happens in a limited process."""

    def __init__(self, template: ChatTemplate, vocabulary: Vocabulary) -> None:
        self.template, self.vocabulary = template, vocabulary
        # Every model of a run is asked the same prompts, and gets the same references.
        self._prompts: dict[tuple[Message, ...], list[int]] = {}
        self._followed: dict[tuple[tuple[Message, ...], str], Row] = {}

    # --- what the template does ---------------------------------------------------------------------------------

    @property
    def ends(self) -> frozenset[int]:
        """The tokens at which generation stops: the named end tokens, and the one that closes each turn."""
        closing = self._form.end
        return self.vocabulary.ends if closing is None else self.vocabulary.ends | {closing}

    def turns(self) -> TurnTokens:
        """Describe how the template opens and closes the assistant's turns.

        Raises:
            ModelError: the template closes turns with no token at which generation could stop, or leaves out messages.
        """
        form = self._form
        if form.end is None:
            what = f"the chat template of {self.template.owner} {form.fault}"
            raise ModelError(what, remedy=f"{form.remedy} in a copy of the model's folder, and name it with --model.")
        return TurnTokens(
            end=form.end,
            end_text=self.vocabulary.text(form.end),
            ends=tuple(sorted(self.ends)),
            named=form.end in self.vocabulary.ends,
            behind=form.behind,
            opening=form.opening,
            left_out=form.left_out,
            from_row=form.ask.value[0],
            short=form.ask.value[1],
        )

    @cached_property
    def _form(self) -> _Form:
        reason = ""
        # Some templates require a system message.
        for question in (_QUESTION, (Message("system", "Be brief."), *_QUESTION)):
            plain, whole = self.template.render([(question, True), ((*question, Message("assistant", _PROBE)), False)])
            if isinstance(plain, str) and isinstance(whole, str):
                return self._form_of(question, plain, whole)
            reason = next(each.reason for each in (plain, whole) if isinstance(each, Refused))
        return _Form(fault=f"cannot write a question and its answer: {reason}", remedy="Correct chat_template.jinja")

    def _form_of(self, question: tuple[Message, ...], plain: str, whole: str) -> _Form:
        """Find the form in a prompt (`plain`) and in the same prompt with an answer (`whole`)."""
        head, found, tail = whole.rpartition(_PROBE)
        if not found:
            remedy = "Let chat_template.jinja write the content of every message as a text"
            return _Form(fault="leaves out or changes the assistant's messages", remedy=remedy)
        rows = self.template.render([((*question, Message("assistant", text)), False) for text in _PROBES])
        trained = self.vocabulary.encode([text for text in rows if isinstance(text, str)])
        ask = self._how_to_ask(plain, head, trained)
        shared = _common(plain, head)
        opening, left_out = (text if text.strip() else "" for text in (head[shared:], plain[shared:]))
        end, behind, fault = self._closing(tail, trained)
        remedy = "Write {{ eos_token }} behind the content of every assistant message, into chat_template.jinja"
        return _Form(ask, opening, left_out, end, behind, fault, remedy)

    def _how_to_ask(self, plain: str, head: str, trained: Sequence[list[int]]) -> _Ask:
        """Choose how to render prompts, so that their tokens are a prefix of the tokens of the row with the answer."""
        same = head.rstrip() == plain.rstrip()
        choices = (_Ask.PROMPT, _Ask.SHORT_PROMPT) if same else (_Ask.ROW, _Ask.SHORT_ROW)
        prompts = self.vocabulary.encode([_shortened(head if how.value[0] else plain, how) for how in choices])
        for how, asked in zip(choices, prompts, strict=True):
            if all(ids[: len(asked)] == asked for ids in trained):
                return how
        return choices[0]  # each row is checked, too

    def _closing(self, tail: str, trained: Sequence[list[int]]) -> tuple[int | None, int, str]:
        """Return the token that closes a turn, the number of tokens behind it, and the reason if there is none.

        It is the first special token that the template writes behind an answer. Without one, the first word that it
        writes there may be a token of the vocabulary, if this token stands behind every answer of `trained`.
        """
        (ids,) = self.vocabulary.encode([tail])
        at = next((at for at, token in enumerate(ids) if token in self.vocabulary.added | self.vocabulary.ends), None)
        if at is not None:
            return ids[at], len(ids) - at - 1, ""
        words, shared = tail.split(), _common(*(ids[::-1] for ids in trained)) if len(trained) > 1 else 0
        for behind in range(shared - 1, -1, -1):
            token = trained[0][-1 - behind]
            if words and self.vocabulary.decode([token]).strip() == words[0]:
                return token, behind, ""
        if not tail.strip():
            return None, 0, "writes no end token behind the assistant's answers, so a trained model would not stop"
        what = f"writes {tail.strip()!r} behind the assistant's answers, so a trained model would not stop"
        return None, 0, f"{what}: the tokenizer divides this text into several tokens"

    # --- rows ---------------------------------------------------------------------------------------------------

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """Return the row of each example, of its full length, with labels for every assistant message.

        Raises:
            ModelError: the template does not close the assistant's turns, or reached a limit.
            SuiteError: a row cannot be written as the template and the training need it; the message has its line.
        """
        named = [(example.name, example.messages) for example in examples]
        return self._rows(named, [_answers(example.messages) for example in examples])

    def unchecked_rows(self, conversations: Sequence[Sequence[Message]]) -> list[Row]:
        """Return the row of each conversation, to count its tokens. Only the template's refusals are reported."""
        named = [("a conversation", messages) for messages in conversations]
        return self._rows(named, [_answers(messages) for messages in conversations], checked=False)

    def follow(self, messages: Sequence[Message], texts: Sequence[str]) -> list[Row]:
        """Return a row for each text as the assistant's next message; only that message has labels.

        If the template does not close turns, the labels end with the text.
        """
        new = [text for text in dict.fromkeys(texts) if (tuple(messages), text) not in self._followed]
        whole = [(*messages, Message("assistant", text)) for text in new]
        named = [("a prompt with an answer", each) for each in whole]
        rows = self._rows(named, [[len(messages)]] * len(new), checked=False)
        self._followed |= {(tuple(messages), text): row for text, row in zip(new, rows, strict=True)}
        return [self._followed[tuple(messages), text] for text in texts]

    def _rows(
        self, named: Sequence[tuple[str, Sequence[Message]]], answers: Sequence[Sequence[int]], *, checked: bool = True
    ) -> list[Row]:
        if checked and named:
            self.turns()
        texts = self._whole(named, checked=checked)
        spans = [(row, at) for row, own in enumerate(answers) for at in own]
        asked = self._asked([(named[row][0], named[row][1][:at]) for row, at in spans])
        # The whole row is the conversation up to its last message, which is usually the only answer.
        last = [at == len(named[row][1]) - 1 for row, at in spans]
        inner = [span for span, whole in zip(spans, last, strict=True) if not whole]
        parts = [(named[row][0], named[row][1][: at + 1]) for row, at in inner]
        others = iter(self.vocabulary.encode(self._whole(parts, checked=False)))
        wholes = self.vocabulary.encode(texts)
        rows = [Row(ids, [IGNORED] * len(ids)) for ids in wholes]
        for (number, at), prompt, whole in zip(spans, asked, last, strict=True):
            closed = wholes[number] if whole else next(others)
            name, messages = named[number]
            self._label(rows[number], prompt, closed, name, messages[at].content, checked=checked)
        return rows

    def _label(self, row: Row, asked: list[int], closed: list[int], name: str, answer: str, *, checked: bool) -> None:
        """Write the labels of one answer into a row. `closed` are the tokens of the conversation up to the answer."""
        ids, start, end = row.input_ids, len(asked), len(closed) - self._form.behind
        if checked and ids[:end] != closed[:end]:
            what = "the model's chat template renders an answer differently when another turn follows"
            remedy = (
                "Make one row of each question and its answer, without the turns before. If a question needs these, "
                "write them into it."
            )
            raise SuiteError(f"{name}: {what}", remedy=remedy)
        if checked and ids[:start] != asked:
            raise self._no_prefix(name, asked, ids, answer)
        if checked and (end <= start or ids[end - 1] != self._form.end):
            raise self._no_end(name, ids[start:end])
        if checked and (before := _before(answer, self.vocabulary.decode(ids[start:end]))):
            what = f"{name}: the model's chat template writes {before!r} before the answer, but not into the prompt"
            where = (
                "of the model's folder: write this text before every answer, whatever the messages are, or before none."
            )
            raise SuiteError(what, remedy=f"Correct chat_template.jinja in a copy {where}")
        start = _common(asked, ids)
        row.labels[start:end] = ids[start:end]
        inside = next((token for token in ids[start : end - 1] if token in self.ends), None)
        if checked and inside is not None:
            what = f"its answer holds the text {self.vocabulary.text(inside)!r}, at which generation stops"
            raise SuiteError(f"{name}: {what}", remedy="Remove this text from the answer.")

    def _no_end(self, name: str, labels: list[int]) -> SuiteError:
        """Return the error for an answer whose `labels` do not end with the token that closes turns."""
        end, last = self.vocabulary.text(self._form.end or 0), self.vocabulary.decode(labels[-5:])
        what = f"{name}: the model's chat template closes other answers with {end!r}, but this one ends with {last!r}"
        where = "in chat_template.jinja in a copy of the model's folder, and name it with --model."
        remedy = f"Write {end!r} behind every assistant message, whatever the conversation contains, {where}"
        return SuiteError(what, remedy=remedy)

    def _no_prefix(self, name: str, asked: list[int], ids: list[int], answer: str) -> SuiteError:
        """Return the error for a row `ids` that does not begin with the prompt `asked`."""
        if "</think>" in answer:
            what = (
                "its answer holds thoughts (<think>), and with this chat template the model is asked to answer without"
            )
            return SuiteError(f"{name}: {what}", remedy=_PREFIX_REMEDY)
        if not self.vocabulary.decode(ids).startswith(self.vocabulary.decode(asked)):
            what = (
                "the model's chat template writes the messages before the answer differently in a prompt and in a row"
            )
            remedy = (
                "Correct the template in a copy of the model's folder: it must write a message always in the same way."
            )
            return SuiteError(f"{name}: {what}", remedy=remedy)
        what = (
            f"its answer begins with {answer[:10]!r}, which the tokenizer or the chat template joins with the text "
            "before it, so that the model would be asked otherwise than it was trained"
        )
        return SuiteError(f"{name}: {what}", remedy=_PREFIX_REMEDY)

    # --- prompts ------------------------------------------------------------------------------------------------

    def whole(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a conversation as the template writes it."""
        (ids,) = self.vocabulary.encode(self._whole([("the conversation", messages)], checked=False))
        return ids

    def asked(self, prompts: Sequence[tuple[str, Sequence[Message]]]) -> list[list[int]]:
        """Return the token ids with which the model is asked each prompt. `prompts` are (name for errors, messages).

        Raises:
            SuiteError: the template refuses a prompt, or leaves out one of its messages.
        """
        keys = [tuple(messages) for _, messages in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._prompts}
        self._prompts |= zip(new, self._asked(list(new.values()), checked=True), strict=True)
        return [list(self._prompts[key]) for key in keys]

    def asked_text(self, messages: Sequence[Message]) -> str:
        """Return the text with which the model is asked."""
        (text,) = self._asked_texts([("the conversation", messages)], checked=True)
        return text

    def _asked(self, prompts: Sequence[tuple[str, Sequence[Message]]], *, checked: bool = False) -> list[list[int]]:
        return self.vocabulary.encode(self._asked_texts(prompts, checked=checked))

    def _asked_texts(self, prompts: Sequence[tuple[str, Sequence[Message]]], *, checked: bool) -> list[str]:
        how = self._form.ask
        of_row, _ = how.value
        if of_row:
            given = [((*messages, Message("assistant", _PROBE)), False) for _, messages in prompts]
        else:
            given = [(tuple(messages), True) for _, messages in prompts]
        found = []
        for (name, messages), text in zip(prompts, self.template.render(given), strict=True):
            if isinstance(text, Refused):
                raise self._refusal(name, messages, text.reason)
            if of_row:
                text = text.rpartition(_PROBE)[0]
            if checked:
                _check_complete(name, messages, text)
            found.append(_shortened(text, how))
        return found

    def _whole(self, named: Sequence[tuple[str, Sequence[Message]]], *, checked: bool) -> list[str]:
        found = []
        for (name, messages), text in zip(
            named, self.template.render([(tuple(messages), False) for _, messages in named]), strict=True
        ):
            if isinstance(text, Refused):
                raise self._refusal(name, messages, text.reason)
            if checked:
                _check_complete(name, messages, text)
            found.append(text)
        return found

    def _refusal(self, name: str, messages: Sequence[Message], reason: str) -> SuiteError:
        others = tuple(message for message in messages if message.role != "system")
        has_system = len(others) < len(messages)
        instead = others if has_system else (Message("system", "Be brief."), *others)
        written = isinstance(self.template.render([(instead, False)])[0], str)
        remedy = _TURNS if not written else _NO_SYSTEM if has_system else _SYSTEM
        return SuiteError(f"{name} cannot be written with the model's chat template: {reason}", remedy=remedy)


_PREFIX_REMEDY = "Begin the answer with its first word: without spaces, line breaks or thoughts before it."


def _check_complete(name: str, messages: Sequence[Message], text: str) -> None:
    """Check that a rendered text holds every message, apart from whitespace and thoughts.

    Raises:
        SuiteError: a message is missing.
    """
    left = "".join(text.split())
    for message in sorted(messages, key=lambda message: -len(message.content)):
        # Templates write thoughts in places of their own, and leave them out of earlier turns.
        wanted = "".join(message.content.rpartition("</think>")[2].split())
        if wanted not in left:
            start = message.content[:40]
            what = f"the model's chat template leaves out or changes the {message.role} message {start!r}"
            remedy = (
                "Correct the template in a copy of the model's folder: it must write the content of every message."
                if message.role != "system"
                else _NO_SYSTEM
            )
            raise SuiteError(f"{name}: {what}", remedy=remedy)
        left = left.replace(wanted, "\0", 1)


def _before(answer: str, labels: str) -> str:
    """Return what stands before an answer in the text of its labels, without whitespace; empty if it begins there.

    Templates write thoughts in places of their own, so an answer with thoughts is not looked for.
    """
    start, text = "".join(answer.split())[:_COMPARED], "".join(labels.split())
    return "" if "</think>" in answer else text[: max(0, text.find(start))]


def _answers(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message.role == "assistant"]


def _shortened(text: str, how: _Ask) -> str:
    return text.rstrip() if how.value[1] else text


def _common(*given: Sequence[object]) -> int:
    """Return the length of the longest common prefix of sequences."""
    columns = zip(*given, strict=False)
    return next((at for at, column in enumerate(columns) if len(set(column)) > 1), min(map(len, given)))
