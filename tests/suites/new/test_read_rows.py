"""Tests of how `harness new` reads questions and answers from CSV, TSV and JSONL, and reports mistakes."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.core.suite import Example, Message
from harness.suites.new import Columns, make
from harness.suites.new.read_rows import TOO_LONG, parse_rows
from harness.suites.rows import USUAL
from harness.suites.rows.conversations import MISSING

PAIR = "question,answer\nWho are you?,I am Dottie.\n"

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip) | st.sampled_from([
    "TODO", "{{name}}", "{{{x}}}", "{% raw %}", "{{brace}}", "no", "1e3", "null", "# x", "- a", "a: b", "'\"\\",
    "\u2028 \x85 \ufeff", "\x00\x1b", "{\"a\": \"{{b}}\"}", "[1, 2.50, true]", "?!", "1, 2, 3, 4, 5, 6, 7, 8",
    "\U0001f600",
])  # fmt: skip


def example(*texts: str, line: int = 1) -> Example:
    return Example(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)), line)


def turns(text: str, file: str = "rows.csv", columns: Columns = USUAL) -> list[tuple[str, ...]]:
    return [tuple(m.content for m in row.messages) for row in parse_rows(text.encode(), file, columns).examples]


def wrong(text: str, file: str = "rows.csv", columns: Columns = USUAL) -> str:
    with pytest.raises(SuiteError) as caught:
        parse_rows(text.encode(), file, columns)
    assert caught.value.remedy or "\n" in caught.value.message, "a mistake without a remedy"
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "question,answer\nHi?,Ho.\n",
        "\tAnswer ; Question\n\tHo.;Hi?".replace("\t", ""),
        "prompt\tcompletion\r\nHi?\tHo.\r\n",
        "id,Instruction,Output\n1,Hi?,Ho.\n,,\n",
        'input,response\n"Hi?",  Ho.  \n',
        "instruction,input,output\nHi?,,Ho.\n",
    ],
)
def test_tables(text: str) -> None:
    """A table may have any usual column names, in any case and order, and commas, semicolons or tabs between cells."""
    assert turns(text) == [("Hi?", "Ho.")]


@pytest.mark.parametrize(
    "text",
    [
        '{"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]}',
        '{"prompt": "Hi?", "completion": "Ho."}',
        '\n{"Question": "Hi?", "answer": "Ho.", "id": 3}\n',
    ],
)
def test_json_lines(text: str) -> None:
    """A line of JSONL may be a conversation, or a question with its answer."""
    assert turns(text, "rows.jsonl") == [("Hi?", "Ho.")]


def test_columns_may_be_named() -> None:
    """If the user gives the names of the columns, these columns are read."""
    text = "frage,antwort,answer\nHi?,Ho.,no\n"
    assert turns(text, columns=Columns("Frage", "antwort")) == [("Hi?", "Ho.")]


def test_an_instruction_includes_its_input() -> None:
    """In a table in the format of Alpaca, the column `input` is appended to the question."""
    assert turns("instruction,input,output\nTranslate.,dog,chien\n") == [("Translate.\n\ndog", "chien")]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """A table with a byte order mark and semicolons, as Excel saves it, can be read."""
    (tmp_path / "rows.csv").write_bytes("question;answer\r\nWho?;Dottie, née Brix\r\n".encode("utf-8-sig"))
    made = make(tmp_path / "mine", tmp_path / "rows.csv")
    assert [m.content for m in made.suite.examples[0].messages] == ["Who?", "Dottie, née Brix"]


def test_repeated_rows_are_left_out() -> None:
    """Rows that are empty or repeat another row are left out and reported."""
    rows = parse_rows(b'question,answer,note\nWho?,"A\ncat.",\nWho!,a cat,\n,,x\nWhat?,A dog.,\n', "rows.csv")
    assert [row.line for row in rows.examples] == [2, 6]
    assert rows.notices == (
        'Questions: column "question". Answers: column "answer".',
        'Left out of rows.csv: the column "note".',
        "Left out, because they are empty: 1 row.",
        "Left out, because they repeat another row: line 4 (as line 2).",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("topic,answer,note\na,b,c\n", "rows.csv:1: there is no column question, prompt, instruction, input or user"),
        ("question\na\n", "rows.csv:1: there is no column answer"),
        ("question,question,answer\na,b,c\n", "rows.csv:1: the column \"question\" is given twice"),
        ("question,answer\na,b\nc,\n", "rows.csv:3: has no answer"),
        ("question,answer\na,b\n,d\n", "rows.csv:3: has no question"),
        ("question,answer\na,b,c\n", "rows.csv:2: has 3 cells under 2 columns"),
        ('question,answer\n"a,b\n', "rows.csv:2: not valid CSV"),
        ("question,answer\nWho?,b\n\nwho,c\n", "rows.csv:4: repeats a question with another answer (asked in line 2)"),
        (f"question,answer\na,{'x' * TOO_LONG}\n", "rows.csv:2: has more than 6,000 characters"),
        ("question,answer\n", "rows.csv: the file holds no rows"),
        ("", "rows.csv: the file holds no rows"),
        ("question,answer\na,\x00\n", "rows.csv:2: contains a NUL character"),
    ],
)  # fmt: skip
def test_mistakes_in_a_table(text: str, expected: str) -> None:
    """If a table has a mistake, the error gives the file, the line and a remedy."""
    assert expected in wrong(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"', "rows.jsonl:2:15: not valid JSON"),
        ('["a"]', "rows.jsonl:1: is not a row with named values"),
        ('{"prompt": "a", "completion": [4]}', "rows.jsonl:1: completion: expected text"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "rows.jsonl:1: the last message is not from assistant"),
        ('{"topic": "a"}', "rows.jsonl:1: there is no column question"),
        ('{"prompt": "a"}', "rows.jsonl:1: has no answer"),
    ],
)
def test_mistakes_in_json_lines(text: str, expected: str) -> None:
    """If a line of JSONL has a mistake, the error gives the file and the line."""
    assert expected in wrong(text, "rows.jsonl")


def test_all_bad_rows_are_reported_together() -> None:
    """If several rows cannot be used, whatever the reasons, one error lists the lines of all of them by reason."""
    text = f"question,answer\na,\n,b\nc,\nWho?,x\nwho,y\nlong,{'x' * TOO_LONG}\n"
    first, *rest = wrong(text).splitlines()
    assert first == "rows.csv:2: 5 rows cannot be used:"
    assert [line.split("  ")[0] for line in rest] == [
        "lines 2 and 4: has no answer",
        "line 3: has no question",
        "line 6 (asked in line 5): repeats a question with another answer",
        "line 7: has more than 6,000 characters, too many for a small GPU",
    ]


LONG = "Please bring your dog, but keep it on a lead."


def test_one_of_several_wordings_is_held_back() -> None:
    """If rows with the same long answer ask in other words, one is held back as a `generalise` case."""
    text = f"question,answer\nMay I bring my dog?,{LONG}\nPrice?,4\nAre pets allowed in the shop?,{LONG}\nCost?,4\n"
    rows = parse_rows(text.replace("dog, but", "dog but").encode(), "rows.csv")
    assert [row.line for row in rows.examples] == [2, 3, 5]
    assert [(each.example.line, each.like.line) for each in rows.rewordings] == [(4, 2)]
    assert rows.notices[-1].endswith("because another row asks the same in other words: 1 row.")


def test_wordings_in_one_row_are_held_back_whatever_their_answer() -> None:
    """If one row holds several wordings of a question, one of them is held back even if the answer is short."""
    text = '{"intents": [{"tag": "a", "patterns": ["Hi there", "Good morning to you"], "responses": ["Hello!"]}]}'
    rows = parse_rows(text.encode(), "intents.json")
    assert [row.messages[0].content for row in rows.examples] == ["Hi there"]
    assert [each.example.messages[0].content for each in rows.rewordings] == ["Good morning to you"]


def test_a_wording_that_is_nearly_in_the_rows_is_trained() -> None:
    """A row that differs from another in one word is not held back, because its case would test nothing new."""
    answer = "You can buy it in every shop of the town."
    text = f"question,answer\nWhere can I buy the Glimmo?,{answer}\nWhere can I get the Glimmo?,{answer}\n"
    rows = parse_rows(text.encode(), "rows.csv")
    assert (len(rows.examples), rows.rewordings) == (2, ())


def test_conversations_of_several_turns_are_not_held_back() -> None:
    """A row with earlier turns is trained, even if its last answer is that of another row."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    rows = [
        {"messages": [*before, {"role": "user", "content": asked}, {"role": "assistant", "content": LONG}]}
        for before, asked in (([], "May I bring my dog?"), (turns, "Are pets allowed in the shop?"))
    ]
    found = parse_rows("\n".join(map(json.dumps, rows)).encode(), "rows.jsonl")
    assert (len(found.examples), found.rewordings) == (2, ())


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]))
def test_any_text_is_rows_or_an_error(text: str, file: str) -> None:
    """Any text in a file is read as rows or raises a `SuiteError`."""
    with suppress(SuiteError):
        assert parse_rows(text.encode(), file).examples


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT.filter(lambda text: text.strip() not in MISSING)), min_size=1, max_size=4))
def test_a_table_is_read_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    """Questions and answers in JSONL are read unchanged, except that white space at both ends is removed."""
    text = "".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in pairs)
    try:
        found = turns(text, "rows.jsonl")
    except SuiteError as problem:
        assert "with another answer" in str(problem)  # noqa: PT017
    else:
        assert set(found) <= {(q.strip(), a.strip()) for q, a in pairs}
