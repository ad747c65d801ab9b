"""Makes training rows of the base model's answers to rehearsal prompts, and counts the answers that are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.core.answers import Answer
from harness.core.errors import HarnessError, SuiteError
from harness.core.rehearsal import RehearsalRow
from harness.core.rehearsal_answers import LeftOut, fault
from harness.core.suite import Example, Message
from harness.models.token_lengths import lengths
from harness.models.tokenizer_files import TokenizerFiles, read_tokenizer


def rehearsal_rows(
    asked: Sequence[tuple[tuple[Message, ...], Answer]], tokenizer: Path, *, judged: bool = True
) -> tuple[tuple[RehearsalRow, ...], dict[LeftOut, int]]:
    """Return the rows of good answers, and the number of the other answers by reason.

    `asked` are the messages of each prompt, with the answer. `tokenizer` is the folder with the model's tokenizer. With
    `judged` False, as for a model with random weights, only answers that no row can hold are left out.
    """
    reasons: Counter[LeftOut] = Counter()
    kept = list[Example]()
    found = read_tokenizer(tokenizer)
    for messages, answer in asked:
        reason = fault(answer)
        if reason and (judged or reason is LeftOut.EMPTY):
            reasons[reason] += 1
            continue
        row = Example((*messages, Message("assistant", answer.text)))
        if _writable(row, found):
            kept.append(row)
        else:
            reasons[LeftOut.UNWRITABLE] += 1
    counts = lengths(kept, tokenizer).tokens
    rows = tuple(RehearsalRow(row.messages, size) for row, size in zip(kept, counts, strict=True))
    return rows, {reason: reasons[reason] for reason in LeftOut if reasons[reason]}


def _writable(row: Example, found: TokenizerFiles | str) -> bool:
    """Whether the chat template can write a row as training needs it. If it cannot be read here, the worker checks."""
    if isinstance(found, str):
        return True
    try:
        found.conversations.rows([row])
    except SuiteError:
        return False
    except HarnessError:  # an error of the template itself, which the check of the suite's rows reports
        return True
    return True
