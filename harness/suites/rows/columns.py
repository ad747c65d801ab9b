"""What each column of a row is for, by its name: question, answer, what belongs to the question, or nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.contamination import words
from harness.core.yaml import shown
from harness.suites.rows.records import Columns, RowError, named

PROMPTS = (
    *("question", "prompt", "instruction", "input", "user", "query", "questions", "patterns", "inputs", "front"),
    *("term", "problem", "human", "frage", "fragen", "pregunta", "domanda", "vraag", "pergunta", "pytanie"),
    *("вопрос", "問題", "問い", "質問", "问题", "問題", "질문"),
)
ANSWERS = (
    *("answer", "completion", "output", "response", "assistant", "answers", "responses", "target", "targets", "back"),
    *("definition", "solution", "chosen", "antwort", "antworten", "respuesta", "réponse", "reponse", "risposta"),
    *("antwoord", "resposta", "odpowiedź", "ответ", "回答", "答え", "答案", "답변", "preferred_output"),
    *("reply", "bot", "ideal", "expected", "expected_output", "ground_truth"),
)
INITIALS = {PROMPTS: "q", ANSWERS: "a"}
"""Names of columns with questions and answers; beside a column `b`, `a` holds a choice."""
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
LOOSE_CONVERSATIONS = ("contents", "data")
"""Names of conversations (Gemini, UltraChat) that mean something else beside a column with questions."""
SYSTEMS = ("system", "system_prompt", "system_message", "systeminstruction", "system_instruction")
HISTORIES = (
    *("history", "chat_history", "dialogue_history", "dialog_history", "conversation_history", "message_history"),
    *("previous_turns", "previous_messages"),
)
CONTEXTS = (
    *("input", "question", "query", "context", "passage", "paragraph", "background", "document", "story", "knowledge"),
    *("excerpt", "article", "evidence", "support", "premise", "hypothesis", "sentence", "abstract", "snippet", "facts"),
    *("contexts", "passages", "paragraphs", "documents", "excerpts", "articles", "evidences", "snippets", "sentences"),
    *("instruction", "instructions", "kontext", "contexte", "contexto", "contesto", "absatz"),
)
"""Columns with text that the question is about. It is put below the question."""
QUESTIONS = frozenset({"question", "query", "instruction", "instructions"})
"""Contexts that are questions themselves: they are below another one only if the user named no column."""
OFTEN_REPEATED = QUESTIONS | {"support", "sentence", "sentences", "story", "facts", "premise", "hypothesis", "abstract"}
"""Contexts that beside a conversation are more likely to repeat a part of it, or to describe it."""
CONTEXT_WORDS = frozenset(CONTEXTS) - OFTEN_REPEATED - {"input"}
"""Words that make a longer name, such as `Source passage`, one of a context."""
_ABOUT = (
    "id ids uid guid no nr num number numbers count counts title titles url urls uri link links name names type types "
    "length lengths len tokens date time score scores rank index idx start end offset lang language source sources key "
    "keys hash category topic level difficulty domain author license split status file path"
)
ABOUT = frozenset(_ABOUT.split())
"""Last words of names of columns about a question or a context, such as `question_id`."""
GOOD_IF_TRUE = frozenset({
    "correct", "right", "accepted", "approved", "valid", "selected", "best", "preferred", "gold", "good", "true",
    "verified", "label",
})  # fmt: skip
BAD_IF_TRUE = frozenset({"deleted", "flagged", "bad", "wrong", "incorrect", "rejected", "false", "invalid"})
"""Names, also after `is`, that say by true or false whether an answer is good, such as `label` in TRL's preferences."""
JUDGED = frozenset({"status", "verdict", "quality", "judgement", "judgment", "feedback"})
"""Names of values that judge an answer in words."""
BAD_WORDS = frozenset({"bad", "wrong", "incorrect", "rejected", "invalid"})
SCORES = frozenset({"score", "scores", "rank", "ranks", "ranking", "rating", "ratings", "reward", "rewards", "votes"})
"""Words in the names of columns that rate several answers."""
CHOICES = "choices belong to the question, and the answer may only be the number of one"
CHOICE = re.compile(r"(option|choice|opt|op|alternative|ending|answer|antwort)[\s_-]*([a-j]|\d)", re.IGNORECASE)
"""The name of a column with one of several choices, such as `option_a`, `Choice 2` and `opa`."""
LETTERS = ("a", "b", "c", "d", "e", "f", "g", "h")
"""Names of columns with choices, if at least the first two are there (MMLU)."""
NOT_TRAINED = {
    "tools": "tool calls are not supported",
    "functions": "tool calls are not supported",
    "tool_calls": "tool calls are not supported",
    "function_call": "tool calls are not supported",
    **dict.fromkeys(("image", "images", "image_url", "image_urls", "image_path", "img"), "images are not supported"),
    **dict.fromkeys(("audio", "audio_url", "audio_path"), "sound is not supported"),
    "video": "videos are not supported",
    **dict.fromkeys(("choices", "options", "endings", "alternatives", "answer_choices", "answer_options"), CHOICES),
}
"""Columns without which the answer means something else, and which cannot be put into a training row."""
BESIDE = "it is not known to which message of the conversation this belongs"
BAD = frozenset({"wrong", "incorrect", "rejected", "bad", "negative", "non", "false", "distractor", "distractors"})
"""Words in the names of columns with answers that must not be trained."""
OTHER_THAN_ANSWERS = BAD | {"system", "history"}
"""Words in names that hold a usual word, such as `System prompt`, and mean neither a question nor an answer."""
NOT_IN_PHRASES = frozenset({
    "input", "inputs", "user", "term", "front", "back", "human", "output", "target", "targets", "assistant", "problem",
    "chosen", "patterns", "definition", "solution", "bot", "ideal", "expected",
})  # fmt: skip
"""Names that must be a column's whole name: in a longer one, such as `User ID`, they mean something else."""
TEXT_ONLY = frozenset({"text", "id", "source", "meta", "metadata"})
"""Columns of rows that are for further pretraining, and hold no answers."""
MOST_COLUMNS = 1000
SHOWN_NAMES = 5


@dataclass(frozen=True)
class Layout:
    """What the columns of a row are for."""

    conversation: str | None
    prompt: str
    answer: str
    system: str | None
    history: str | None
    contexts: tuple[str, ...]
    not_trained: tuple[tuple[str, str], ...]
    """Columns that cannot be put into a training row and change what the answer means, with the reason."""
    rest: tuple[str, ...]
    """Columns that are used for nothing."""

    @property
    def has_wordings(self) -> bool:
        """Whether lists of questions and answers are wordings of one question, by the names of their columns."""
        names = (self.prompt.strip().casefold(), self.answer.strip().casefold())
        return self.conversation is None and names == ("patterns", "responses")


def layout_of(names: Sequence[str], columns: Columns, *, lists: Sequence[str] = (), read_as: str = "") -> Layout:
    """Return what the columns with these names are for. `lists` are the columns that hold lists.

    Raises:
        RowError: there is no column with questions, or none with answers.
    """
    if len(names) > MOST_COLUMNS:
        remedy = "Put rows below each other, one question with its answer in each."
        raise RowError(f"has {len(names):,} columns, more than {MOST_COLUMNS:,}", remedy)
    by_name = _by_name(names)
    left = {_known(by_name, given, "--leave-out", names) for given in columns.leave_out}
    usable = {key: name for key, name in by_name.items() if name not in left}
    conversation = _conversation(usable, lists, columns)
    if conversation is None:
        prompt, answer = _pair(usable, names, columns, read_as)
    else:
        prompt = answer = ""
    used = {conversation, prompt, answer}
    usable = {key: name for key, name in usable.items() if name not in used}
    spelt = {key.replace(" ", "_"): name for key, name in usable.items()}
    system = next((spelt[key] for key in SYSTEMS if key in spelt), None)
    history = next((spelt[key] for key in HISTORIES if key in spelt), None)
    others = frozenset() if columns.prompt is None else QUESTIONS
    about = tuple(name for key, name in usable.items() if key not in others and _is_context(key))
    contexts = () if conversation else about
    not_trained = (
        *((usable[key], why) for key, why in NOT_TRAINED.items() if key in usable),
        *((name, CHOICES) for name in _choices(usable)),
        *((name, BESIDE) for name in about if conversation and name.strip().casefold() not in OFTEN_REPEATED),
    )
    used |= {system, history, *contexts, *(name for name, _ in not_trained)}
    rest = tuple(name for name in names if name not in used)
    return Layout(conversation, prompt, answer, system, history, contexts, not_trained, rest)


def lists_in(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of a row that hold lists; `data` counts only with texts, since objects in it may be rows."""
    return tuple(
        name
        for name, value in cells.items()
        if isinstance(value, list) and (name != "data" or all(isinstance(each, str) for each in value))
    )


def _is_context(key: str) -> bool:
    """Whether a column, by its lower-case name, holds text that the question is about."""
    if key in CONTEXTS:
        return True
    parts = words(key.replace("_", " ")) if len(key) < 200 else ()
    return bool(parts) and not CONTEXT_WORDS.isdisjoint(parts) and not is_about(key)


def belongs_to_questions(name: str) -> bool:
    """Whether a value with this name, beside a list of rows, changes what all of them ask."""
    key = name.strip().casefold()
    return key.replace(" ", "_") in (*SYSTEMS, *NOT_TRAINED) or (_is_context(key) and key not in OFTEN_REPEATED)


def is_about(key: str) -> bool:
    """Whether a longer name is that of a column about questions or contexts, such as `question_id`."""
    parts = words(key.replace("_", " "))
    return len(parts) > 1 and (parts[-1] in ABOUT or parts[0] in ("num", "number"))


def marks(name: str) -> str:
    """Return the name of a value that may judge an answer as the sets above have it: `correct` for `isCorrect`."""
    key = re.sub(r"[\s_-]", "", name.casefold()) if len(name) < 200 else ""
    return key[2:] if key[2:] in GOOD_IF_TRUE | BAD_IF_TRUE and key.startswith("is") else key


def truth(value: object) -> bool | None:
    """Return what a value such as `false`, `0` or `no` says; None if it is neither true nor false."""
    written = str(value).strip().casefold()
    if written in ("true", "1", "1.0", "yes"):
        return True
    return False if written in ("false", "0", "0.0", "no") else None


def is_bad(name: str, value: object) -> bool:
    """Whether a value with this name says that its answer is a bad one."""
    if isinstance(value, list):
        return bool(value) and all(is_bad(name, each) for each in value)
    key, said = marks(name), truth(value)
    if isinstance(value, str) and key in GOOD_IF_TRUE | JUDGED and value.strip().casefold() in BAD_WORDS:
        return True
    # A label of 0 is more often that of a class.
    return (said is False and key in GOOD_IF_TRUE and (key != "label" or str(value).strip().casefold() == "false")) or (
        said is True and key in BAD_IF_TRUE
    )


def _choices(usable: dict[str, str]) -> tuple[str, ...]:
    """Return the columns that hold one choice each."""
    letters = LETTERS if all(letter in usable for letter in LETTERS[:2]) else ()
    numbered = [key for key in usable if CHOICE.fullmatch(key)]
    if len(numbered) == 1 and numbered[0].startswith(("answer", "antwort")):
        numbered = []
    return tuple(name for key, name in usable.items() if key in letters or key in numbered)


def is_header(names: Sequence[str], columns: Columns, *, exact: bool = False) -> bool:
    """Whether the cells of a line are the names of columns: they hold those of questions and of answers.

    With `exact`, names that only contain a usual word do not count.
    """
    by_name = _by_name(names)
    if columns.prompt is None and CONVERSATIONS[0] in by_name:
        return True
    for given, usual in ((columns.prompt, PROMPTS), (columns.answer, ANSWERS)):
        found = by_name.get(given.strip().casefold()) if given is not None else usual_name(by_name, usual, exact=exact)
        if found is None:
            return False
        # A single cell may hold both words, if the line was split by another delimiter than its own.
        by_name = {key: name for key, name in by_name.items() if name != found}
    return True


def usual_name(by_name: dict[str, str], usual: Sequence[str], *, exact: bool = False) -> str | None:
    """Return the column with the first usual name; else, unless `exact`, the only one whose name has such a word."""
    same = next((by_name[key] for key in usual if key in by_name), None)
    if same is None and usual in INITIALS and "b" not in by_name:
        same = by_name.get(INITIALS[usual])
    if same is not None or exact:
        return same
    phrases = set(usual) - NOT_IN_PHRASES
    found = [
        name
        for key, name in by_name.items()
        if len(key) < 200
        and phrases & (parts := set(words(key.replace("_", " "))))
        and not is_about(key)
        and OTHER_THAN_ANSWERS.isdisjoint(parts)
    ]
    return found[0] if len(found) == 1 else None


def _by_name(names: Iterable[str]) -> dict[str, str]:
    """Return names by their lower-case form. If two names have the same, the one that is lower-case counts."""
    found: dict[str, str] = {}
    for name in names:
        key = name.strip().casefold()
        if key not in found or name == key:
            found[key] = name
    return found


def _conversation(usable: dict[str, str], lists: Sequence[str], columns: Columns) -> str | None:
    if columns.prompt is not None or columns.answer is not None:
        return None
    for key in CONVERSATIONS:
        if key in usable and (usable[key] in lists or key == "messages"):
            return usable[key]
    if usual_name(usable, PROMPTS) is not None:
        return None
    # Preferences without a question of their own hold whole conversations (TRL's implicit prompt).
    return next((usable[key] for key in (*LOOSE_CONVERSATIONS, "chosen") if usable.get(key) in lists), None)


def _pair(usable: dict[str, str], names: Sequence[str], columns: Columns, read_as: str) -> tuple[str, str]:
    if "text" in usable and usable.keys() <= TEXT_ONLY and columns.prompt is None and columns.answer is None:
        raise RowError(
            'holds only "text", in which question and answer cannot be told apart',
            'Write each row as {"prompt": "the question", "completion": "the answer"}: only answers are trained, and '
            "the questions become cases.",
        )
    is_unasked = columns.prompt is None and usual_name(usable, PROMPTS) is None
    if is_unasked and "chosen" in usable:
        raise RowError(
            f"{usable['chosen']}: holds question and answer in one text, in which they cannot be told apart",
            'Write each row as {"prompt": "the question", "completion": "the better answer"}.',
        )
    if is_unasked and (whole := next((usable[key] for key in CONVERSATIONS if key in usable), None)):
        raise RowError(
            f"{whole}: expected a list of messages, and a text does not say for certain who speaks",
            f'Write it as a list: {{"{whole}": [{{"role": "user", "content": "..."}}, '
            '{"role": "assistant", "content": "..."}]}.',
        )
    if is_unasked and "role" in usable and not {"text", "content"}.isdisjoint(usable):
        raise RowError(
            "holds one message, and not a question with its answer",
            'Write the messages of each conversation into one row: {"messages": [{"role": "user", "content": "..."}, '
            '{"role": "assistant", "content": "..."}]}.',
        )
    # Of an instruction and a question or input, the instruction comes first, as in Alpaca.
    given = "instruction" if columns.prompt is None and "instruction" in usable else columns.prompt
    prompt = _column(usable, given, PROMPTS, "--prompt-column", names, columns, read_as)
    rest = {key: name for key, name in usable.items() if name != prompt}
    return prompt, _column(rest, columns.answer, ANSWERS, "--answer-column", names, columns, read_as)


def _column(
    usable: dict[str, str], given: str | None, usual: Sequence[str], option: str, names: Sequence[str],
    columns: Columns, read_as: str,
) -> str:  # fmt: skip
    if given is not None:
        return _known(usable, given, option, names)
    if found := usual_name(usable, usual):
        return found
    what = "question" if usual is PROMPTS else "answer"
    if not usable and not read_as:
        example = "prompt" if usual is PROMPTS else "completion"
        raise RowError(f"has no {what}", f'Add it, as "{example}": "...", or remove the row.')
    first = usual[:SHOWN_NAMES]
    where = f" in {read_as}" if read_as else ""
    message = f"there is no column {', '.join(first[:-1])} or {first[-1]}{where}"
    raise RowError(message, _advice(names, what, option, columns, is_table=bool(read_as)))


def _known(by_name: dict[str, str], given: str, option: str, names: Sequence[str]) -> str:
    found = by_name.get(given.strip().casefold())
    if found is None:
        remedy = f"The columns are: {named(names)}. Name one with {option}."
        raise RowError(f"there is no column {shown(given)}", remedy)
    return found


def _may_be_named(name: str) -> bool:
    """Whether a remedy may propose a column for questions or answers."""
    return OTHER_THAN_ANSWERS.isdisjoint(words(name.replace("_", " ")))


def _advice(names: Sequence[str], what: str, option: str, columns: Columns, *, is_table: bool) -> str:
    if len(names) == 1 and not is_table:
        return (
            f'The only column is {named(names)}. Write {{"prompt": ..., "completion": ...}} or {{"messages": [...]}}.'
        )
    if len(names) == 1:
        return f"The only column is {named(names)}. Write each question and its answer on one line, with a tab between."
    listed = f"The columns are: {named(names)}."
    is_form = len(names) > 2 and any(re.search(r"\?(\s*\[\w+\])?\s*$", name) for name in names[1:])
    answered = "If these are the questions, write each into a row of its own, with its answer beside it. Otherwise "
    first = f"{listed} {answered if is_form else ''}"
    rename, name = ("rename", "name") if is_form else ("Rename", "Name")
    if not columns.has_options:
        return f'{first}{rename} the one with the {what}s to "{what}".'
    is_open = columns.prompt is None and columns.answer is None
    if len(names) == 2 and is_open and all(map(_may_be_named, names)):
        given = " ".join(map(shlex.quote, ("--prompt-column", names[0], "--answer-column", names[1])))
        by_number = ", or with --prompt-column 1 --answer-column 2 if this line is a row already" if is_table else ""
        return f"{first}{name} them with {given}{by_number}."
    if is_open and option == "--prompt-column" and usual_name(_by_name(names), ANSWERS) is None:
        return (
            f"{first}{name} the one with the questions with {option}, and that with the answers with --answer-column."
        )
    return f"{first}{name} the one with the {what}s with {option}."
