"""References are used as drafts of answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.suite import Decoding
from harness.engine.generation.drafts import agreed, draft_of
from harness.engine.loading import Base
from harness.engine.tokenization import follow, render
from tests.support.short_trainings import SUITE, prompts

(PROMPT,) = prompts(SUITE.cases[0].prompt)


@pytest.mark.parametrize(
    ("taken", "draft", "known"),
    [
        ([5, 6, 7], [5, 6], 3),
        ([5, 6, 7], [5, 9], 2),
        ([5, 6, 7], [9, 6], 1),
        ([5, 6], [5, 6], 2),
        ([5], [], 1),
        ([5], [5, 6], 1),
    ],
)
def test_tokens_are_known_up_to_the_first_that_differs_from_the_draft(
    taken: list[int], draft: list[int], known: int
) -> None:
    """The tokens that agree with a draft are known, and the next one, as far as the model's tokens are given."""
    assert agreed(taken, draft) == known


def test_a_draft_is_the_row_of_the_prompt_and_its_reference(base: Base) -> None:
    """A reference becomes a draft: the row whose log-probability is computed, which begins with the prompt."""
    ids = render(PROMPT.messages, base.tokenizer, ask=True)
    asked = replace(PROMPT, reference="Paris.")
    assert draft_of(asked, ids, base.tokenizer, Decoding(8)) == follow(PROMPT.messages, "Paris.", base.tokenizer)


def test_a_reference_that_does_not_fit_is_no_draft(base: Base) -> None:
    """There is no draft without a reference, nor with one that is longer than an answer or changes the prompt."""
    ids = render(PROMPT.messages, base.tokenizer, ask=True)
    asked = replace(PROMPT, reference="Paris is the capital of France.")
    assert draft_of(PROMPT, ids, base.tokenizer, Decoding(48)) is None
    assert draft_of(asked, ids, base.tokenizer, Decoding(2)) is None
    assert draft_of(asked, [*ids[:-1], ids[-1] + 1], base.tokenizer, Decoding(48)) is None
