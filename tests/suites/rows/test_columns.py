"""Tests of what the columns of rows are for, by their names."""

from __future__ import annotations

import pytest

from harness.suites.rows.columns import is_header, layout_of
from harness.suites.rows.records import USUAL, WITHOUT_OPTIONS, Columns, RowError


def refused(names: list[str], columns: Columns = USUAL, read_as: str = "") -> RowError:
    with pytest.raises(RowError) as caught:
        layout_of(names, columns, read_as=read_as)
    return caught.value


@pytest.mark.parametrize(
    ("names", "prompt", "answer"),
    [
        (["id", "Question", "ANSWER"], "Question", "ANSWER"),
        (["input", "output"], "input", "output"),
        (["What is your question?", "The right answer", "User ID"], "What is your question?", "The right answer"),
        (["Question", "Question (long)", "answer"], "Question", "answer"),
        (["Frage", "Antwort", "Preis"], "Frage", "Antwort"),
        (["Answer", "answer", "question"], "question", "answer"),
    ],
)
def test_usual_names(names: list[str], prompt: str, answer: str) -> None:
    """Questions and answers are in the columns with the usual names, or whose names alone contain such a word."""
    layout = layout_of(names, USUAL)
    assert (layout.prompt, layout.answer) == (prompt, answer)
    assert set(layout.rest) == set(names) - {prompt, answer}


@pytest.mark.parametrize("names", [["Question 1", "Question 2", "answer"], ["User ID", "answer"], ["a", "b", "c"]])
def test_a_column_is_not_guessed(names: list[str]) -> None:
    """If no name, or several, could be that of the questions, none is chosen."""
    assert not is_header(names, USUAL)
    assert refused(names).message.startswith("there is no column question")


def test_what_belongs_to_a_question() -> None:
    """Contexts, system messages and earlier turns belong to the question; the column of the questions is no context."""
    layout = layout_of(["system", "history", "instruction", "input", "passage", "output", "source"], USUAL)
    assert (layout.system, layout.history, layout.contexts) == ("system", "history", ("input", "passage"))
    assert layout.rest == ("source",)
    assert layout_of(["input", "output"], USUAL).contexts == ()


def test_a_conversation_is_a_list() -> None:
    """A column called conversation is one if it holds lists; else question and answer count."""
    names = ["conversation", "question", "answer"]
    assert layout_of(names, USUAL, lists=["conversation"]).conversation == "conversation"
    assert layout_of(names, USUAL).conversation is None
    assert layout_of(["messages"], USUAL).conversation == "messages"


def test_named_columns_come_before_usual_names() -> None:
    """Columns that the user names are used, and those to leave out are not, whatever the case of their names."""
    layout = layout_of(["question", "answer", "A", "context"], Columns(answer="a", leave_out=("CONTEXT",)))
    assert (layout.prompt, layout.answer, layout.contexts) == ("question", "A", ())
    assert set(layout.rest) == {"answer", "context"}


def test_the_remedy_names_options_only_where_there_are_some() -> None:
    """`harness new` names its options; for `train: file://NAME` the remedy is to rename a column."""
    names = ["x y", "z"]
    assert "--prompt-column 'x y' --answer-column z" in refused(names).remedy
    both = "Name the one with the questions with --prompt-column, and that with the answers with --answer-column."
    assert refused([*names, "b"]).remedy.endswith(both)
    assert "--prompt-column 1 --answer-column 2" in refused(names, read_as="a table").remedy
    assert refused(names, WITHOUT_OPTIONS).remedy.endswith('Rename the one with the questions to "question".')


@pytest.mark.parametrize(
    ("names", "prompt", "contexts"),
    [
        (["question", "instruction", "answer"], "instruction", ("question",)),
        (["query", "instruction", "input", "output"], "instruction", ("query", "input")),
        (["question", "passages", "answer"], "question", ("passages",)),
        (["question", "Source document", "document_id", "Context (optional)", "answer"], "question",
         ("Source document", "Context (optional)")),
        (["knowledge", "question", "question_id", "answer"], "question", ("knowledge",)),
        (["question text", "question_id", "answer"], "question text", ()),
    ],
)  # fmt: skip
def test_what_belongs_to_the_question_is_put_below_it(names: list[str], prompt: str, contexts: tuple[str, ...]) -> None:
    """Questions and contexts are put below an instruction or a question; columns about these, such as ids, are not."""
    layout = layout_of(names, USUAL)
    assert (layout.prompt, layout.contexts) == (prompt, contexts)


def test_a_named_question_has_no_other_question_below_it() -> None:
    """If the user names the column of questions, other questions are not put below them."""
    layout = layout_of(["question_de", "question", "context", "answer"], Columns(prompt="question_de"))
    assert (layout.prompt, layout.contexts, layout.rest) == ("question_de", ("context",), ("question",))


@pytest.mark.parametrize(
    "names", [["A", "B", "C", "D"], ["option_a", "option_b"], ["Choice 1", "Choice 2"], ["opa", "opb"], ["endings"]]
)
def test_choices_in_columns_of_their_own_are_not_trained(names: list[str]) -> None:
    """Columns with one choice each, as in MMLU, count as choices, and not as columns to be left out."""
    layout = layout_of(["question", *names, "answer"], USUAL)
    assert [name for name, _ in layout.not_trained] == names
    assert layout.rest == ()


@pytest.mark.parametrize("name", ["chat_history", "dialogue_history", "History"])
def test_names_of_a_history(name: str) -> None:
    """Earlier turns are found under the names that datasets use."""
    assert layout_of([name, "question", "answer"], USUAL).history == name
