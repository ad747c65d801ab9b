"""Which cases are not new to a tuned model: whether a case's prompt, or nearly the same, stands in the training rows.

A prompt is its words, without case, white space and punctuation. It is *seen* when a training prompt has the same
words, and a *near-duplicate* when at most a quarter of the words differ from a training prompt's, or a single word (a
name or a number, say) of three or more; or when nine tenths of the characters agree, for misspelt words and for scripts
that put no spaces between words. In the workshop's suite "What does the Razel run on?" is then nearly "What does the
Glimmo run on?", and "What does the Glimmo cost?" is not nearly "How much does the Glimmo cost?", which has two words
more or other ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.results import Results
from harness.core.suite import Case, Example, Leak, LeakLabel, Role, Suite

WORDS_CHANGED = 0.25
"""A near-duplicate's largest share of words that were changed, put in or left out."""
NEAREST = 0.66
"""Below this share of equal words nothing is looked at: a little less than two words of three."""
CHARACTERS = 90.0
"""The percentage of characters from which two prompts are near-duplicates, whatever their words."""
# An operator tells "13 - 9" from "13 + 9"; elsewhere these marks are punctuation.
TOKEN = re.compile(r"\w+|[-+*/^%<>=](?=\s*\d)")
# Words are compared as single characters of the planes that hold no surrogates.
FIRST_WORD = 0x10000


def leaks(suite: Suite) -> dict[str, Leak]:
    """Return for each case id whether the training rows hold its prompt.

    Takes less than a second for 1,000 cases and 1,000 rows.
    """
    rows = _Rows(suite.examples)
    return {case.id: rows.leak(case.prompt) for case in suite.cases}


def leaks_in_results(results: Results) -> dict[str, Leak]:
    """Return the labels that the results hold; results of an older harness have none, and they are computed."""
    return results.leaks or leaks(results.run.suite)


def role_warnings(suite: Suite) -> tuple[str, ...]:
    """Return warnings about `generalise` cases that are not new and `learn` cases that no row teaches."""
    if not suite.examples:
        return ()
    found = leaks(suite)
    return (
        *_seen([(c, found[c.id]) for c in suite.cases if c.role is Role.GENERALISE]),
        *_near([(c, found[c.id]) for c in suite.cases if c.role is Role.GENERALISE]),
        *_untaught([c for c in suite.cases if c.role is Role.LEARN and found[c.id].label is LeakLabel.UNSEEN]),
    )


def words(prompt: str) -> list[str]:
    """A prompt's words, whatever their case, the white space between them and the punctuation around them."""
    return TOKEN.findall(unicodedata.normalize("NFKC", prompt).casefold()) or prompt.split()


# --- one prompt against all rows ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A training prompt: its line, and its words joined by single spaces."""

    line: int
    text: str


class _Rows:
    """All training prompts, ready to be compared with."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self.letters: dict[str, str] = {}
        self.asked = [_Asked(example.line, " ".join(words(text))) for example in examples for text in _prompts(example)]
        self.texts = [asked.text for asked in self.asked]
        self.lines = {asked.text: asked.line for asked in reversed(self.asked)}
        self.spelt = [self.spell(asked.text) for asked in self.asked]

    def spell(self, text: str) -> str:
        """One character per word, the same for the same word."""
        return "".join(self.letters.setdefault(word, chr(FIRST_WORD + len(self.letters))) for word in text.split(" "))

    def leak(self, prompt: str) -> Leak:
        text = " ".join(words(prompt))
        if text in self.lines:
            return Leak(LeakLabel.SEEN, self.lines[text], 1.0)
        return self.by_words(text) or self.by_characters(text) or Leak(LeakLabel.UNSEEN)

    def by_words(self, text: str) -> Leak | None:
        from rapidfuzz import process
        from rapidfuzz.distance import Levenshtein

        spelt = self.spell(text)
        found = process.extractOne(spelt, self.spelt, scorer=Levenshtein.normalized_similarity, score_cutoff=NEAREST)
        if found is None:
            return None
        nearest, similarity, index = found
        longer = max(len(spelt), len(nearest))
        if round((1 - similarity) * longer) > max(1, WORDS_CHANGED * longer):
            return None
        return Leak(LeakLabel.NEAR_DUPLICATE, self.asked[index].line, similarity)

    def by_characters(self, text: str) -> Leak | None:
        from rapidfuzz import fuzz, process

        found = process.extractOne(text, self.texts, scorer=fuzz.ratio, score_cutoff=CHARACTERS)
        return found and Leak(LeakLabel.NEAR_DUPLICATE, self.asked[found[2]].line, found[1] / 100)


def _prompts(example: Example) -> list[str]:
    """The user's messages that are answered: what a row teaches to answer."""
    turns = zip(example.messages, example.messages[1:], strict=False)
    return [message.content for message, after in turns if message.role == "user" and after.role == "assistant"]


# --- words -------------------------------------------------------------------------------------------------------

SHOWN = 3


def _seen(cases: Sequence[tuple[Case, Leak]]) -> list[str]:
    found = [(case, leak) for case, leak in cases if leak.label is LeakLabel.SEEN]
    lines = [
        f"{_place(case)}: {case.id} is to generalise, but training row {leak.line} asks the same. "
        "Ask it in other words, or make it `role: learn`."
        for case, leak in found[:SHOWN]
    ]
    return lines + _more(len(found), "generalise cases that training rows ask in the same words")


def _near(cases: Sequence[tuple[Case, Leak]]) -> list[str]:
    found = [(case, leak) for case, leak in cases if leak.label is LeakLabel.NEAR_DUPLICATE]
    if not found:
        return []
    shown = [f"{case.id} ({_place(case)}, like row {leak.line})" for case, leak in found[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    which = f"{len(found)} of {len(cases)} generalise cases are nearly a training row"
    return [f"{which}: {', '.join(shown)}{more}. Pass rates by label tell how much they flatter."]


def _untaught(cases: Sequence[Case]) -> list[str]:
    lines = [
        f"{_place(case)}: {case.id} is to learn, but no training row asks it. Add a row, or make it `role: generalise`."
        for case in cases[:SHOWN]
    ]
    return lines + _more(len(cases), "learn cases that no training row asks")


def _more(count: int, what: str) -> list[str]:
    return [f"And {count - SHOWN} more {what}."] if count > SHOWN else []


def _place(case: Case) -> str:
    return f"line {case.line}"
