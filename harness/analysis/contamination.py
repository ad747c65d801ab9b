"""Contamination: find cases whose prompt, or nearly the same prompt, is in the training rows.

Prompts are compared word by word, ignoring letter case, white space and punctuation. A case gets one of three labels:

- *seen*: a training prompt has the same words.
- *near-duplicate*: compared with a training prompt, at most a quarter of the words differ; or one word differs (such
  as a name or a number), in a prompt with at least three words; or at least 90% of the characters agree, which covers
  spelling mistakes and scripts without spaces between words.
- *unseen*: all other cases.

Example: "What does the Razel run on?" is a near-duplicate of "What does the Glimmo run on?". "What does the Glimmo
cost?" is not a near-duplicate of "How much does the Glimmo cost?", because two of six words differ.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.run_results import Results
from harness.core.suite import Case, Example, Leak, LeakLabel, Message, Role, Suite

WORDS_CHANGED = 0.25
"""Largest share of words by which a near-duplicate differs from a training prompt (changed, added or removed)."""
NEAREST = 0.66
"""Smallest share of equal words at which a prompt can be a near-duplicate by its words: just below two of three."""
CHARACTERS = 90.0
"""With at least this percentage of equal characters, a prompt is a near-duplicate, whatever its words."""
LEAST_WORDS = 4
"""Smallest number of words of a question that counts as contained in another one."""
# Before a digit, an operator is a word, so that "13 - 9" differs from "13 + 9". Elsewhere it is punctuation.
TOKEN = re.compile(r"\w+|[-+*/^%<>=](?=\s*\d)")
# For fast comparison, each word is replaced by one character, from this code point on. No surrogates follow it.
FIRST_WORD = 0x10000
MOST_WORDS = sys.maxunicode + 1 - FIRST_WORD
"""Number of characters for words. Further words share the characters of the first ones."""


def leaks(suite: Suite) -> dict[str, Leak]:
    """Return the contamination label of each case, by case id.

    The run time is below a second for 1,000 cases and 1,000 rows.
    """
    rows = _Rows(suite.examples)
    return {case.id: rows.leak(case.prompt) for case in suite.cases}


def prompts_near(suite: Suite, prompts: Iterable[str]) -> set[str]:
    """Return the prompts that are in or near a case or a training row of a suite, by the rule of the labels."""
    asked = (message for case in suite.cases for message in case.messages if message.role == "user")
    given = [Example((message, Message("assistant", ""))) for message in asked]
    rows = _Rows([*given, *suite.examples])
    return {prompt for prompt in prompts if rows.leak(prompt).label is not LeakLabel.UNSEEN}


def prompts_around(suite: Suite, prompts: Iterable[str]) -> set[str]:
    """Return the prompts that contain a whole question of a case or a training row, or are contained in one.

    A question or a prompt of fewer than `LEAST_WORDS` words, such as `What is that?`, is contained in none.
    """
    asked = [message.content for case in suite.cases for message in case.messages if message.role == "user"]
    given = [text for example in suite.examples for text in _prompts(example)]
    questions = {text for text in map(_spaced, (*asked, *given)) if _is_long(text)}
    whole = {prompt: _spaced(prompt) for prompt in prompts}
    return {
        prompt
        for prompt, text in whole.items()
        if any(question in text or (_is_long(text) and text in question) for question in questions)
    }


def leaks_in_results(results: Results) -> dict[str, Leak]:
    """Return the contamination labels stored in a run's results. If an older version stored none, compute them."""
    return results.leaks or leaks(results.run.suite)


def role_warnings(suite: Suite) -> tuple[str, ...]:
    """Return warnings about `generalise` cases that are in the training rows and `learn` cases that are not."""
    if not suite.examples:
        return ()
    found = leaks(suite)
    return (
        *_seen([(c, found[c.id]) for c in suite.cases if c.role is Role.GENERALISE]),
        *_near([(c, found[c.id]) for c in suite.cases if c.role is Role.GENERALISE]),
        *_untaught([c for c in suite.cases if c.role is Role.LEARN and found[c.id].label is LeakLabel.UNSEEN]),
    )


def words(prompt: str) -> list[str]:
    """Split a prompt into words, ignoring letter case, white space and punctuation."""
    return TOKEN.findall(unicodedata.normalize("NFKC", prompt).casefold()) or prompt.split()


def _spaced(prompt: str) -> str:
    """Return the words of a prompt, each between spaces, so that only whole words are found in it."""
    return f" {' '.join(words(prompt))} "


def _is_long(spaced: str) -> bool:
    return spaced.count(" ") > LEAST_WORDS  # one space more than words


# --- one prompt against all rows ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainingPrompt:
    """A prompt of a training row: the line of the row, and the words of the prompt joined by single spaces."""

    line: int
    text: str


class _Rows:
    """The training prompts in a form that is fast to compare."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self.characters: dict[str, str] = {}
        self.prompts = [
            _TrainingPrompt(example.line, " ".join(words(text))) for example in examples for text in _prompts(example)
        ]
        self.texts = [prompt.text for prompt in self.prompts]
        self.lines = {prompt.text: prompt.line for prompt in reversed(self.prompts)}
        self.encoded = [self.encode(prompt.text) for prompt in self.prompts]

    def encode(self, text: str) -> str:
        """Replace each word by one character, and equal words by the same character."""
        return "".join(
            self.characters.setdefault(word, chr(FIRST_WORD + len(self.characters) % MOST_WORDS))
            for word in text.split(" ")
        )

    def leak(self, prompt: str) -> Leak:
        text = " ".join(words(prompt))
        if text in self.lines:
            return Leak(LeakLabel.SEEN, self.lines[text], 1.0)
        return self.by_words(text) or self.by_characters(text) or Leak(LeakLabel.UNSEEN)

    def by_words(self, text: str) -> Leak | None:
        from rapidfuzz import process
        from rapidfuzz.distance import Levenshtein

        encoded = self.encode(text)
        found = process.extractOne(
            encoded, self.encoded, scorer=Levenshtein.normalized_similarity, score_cutoff=NEAREST
        )
        if found is None:
            return None
        nearest, similarity, index = found
        longer = max(len(encoded), len(nearest))
        if round((1 - similarity) * longer) > max(1, WORDS_CHANGED * longer):
            return None
        return Leak(LeakLabel.NEAR_DUPLICATE, self.prompts[index].line, similarity)

    def by_characters(self, text: str) -> Leak | None:
        from rapidfuzz import fuzz, process

        found = process.extractOne(text, self.texts, scorer=fuzz.ratio, score_cutoff=CHARACTERS)
        return found and Leak(LeakLabel.NEAR_DUPLICATE, self.prompts[found[2]].line, found[1] / 100)


def _prompts(example: Example) -> list[str]:
    """Return the prompts of a training row: its user messages that are followed by an assistant message."""
    turns = zip(example.messages, example.messages[1:], strict=False)
    return [message.content for message, after in turns if message.role == "user" and after.role == "assistant"]


# --- warnings ----------------------------------------------------------------------------------------------------

SHOWN = 3


def _seen(cases: Sequence[tuple[Case, Leak]]) -> list[str]:
    found = [(case, leak) for case, leak in cases if leak.label is LeakLabel.SEEN]
    lines = [
        f"{case.place}: {case.id} has `role: generalise`, but training row {leak.line} has the same prompt. "
        "Reword the case, or give it `role: learn`."
        for case, leak in found[:SHOWN]
    ]
    return lines + _more(len(found), "generalise cases with the same prompt as a training row")


def _near(cases: Sequence[tuple[Case, Leak]]) -> list[str]:
    found = [(case, leak) for case, leak in cases if leak.label is LeakLabel.NEAR_DUPLICATE]
    if not found:
        return []
    shown = [f"{case.id} ({case.place}, like row {leak.line})" for case, leak in found[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    which = f"{len(found)} of {len(cases)} generalise cases nearly repeat a training row"
    return [f"{which}: {', '.join(shown)}{more}. The pass rates by label show how much this raises the overall rate."]


def _untaught(cases: Sequence[Case]) -> list[str]:
    lines = [
        f"{case.place}: {case.id} has `role: learn`, but no training row has its prompt. "
        "Add a row, or give the case `role: generalise`."
        for case in cases[:SHOWN]
    ]
    return lines + _more(len(cases), "learn cases that are not in the training rows")


def _more(count: int, what: str) -> list[str]:
    return [f"And {count - SHOWN} more {what}."] if count > SHOWN else []
