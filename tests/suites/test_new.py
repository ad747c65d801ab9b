"""New suites from a user's questions and answers: what is read, what is refused, and what is written."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from harness.core.errors import SuiteError, UsageError
from harness.core.suite import Example, Message, Role, Split, Suite
from harness.core.yaml import parse_yaml
from harness.scoring import score
from harness.suites import load_suite, parse_suite
from harness.suites.grids import load_plan, parse_plan
from harness.suites.json_schema import suite_schema
from harness.suites.new import Columns, make
from harness.suites.new.read_rows import TOO_LONG, USUAL, parse_rows
from harness.suites.new.write_suite import ASKED, assertions, files

PAIR = "question,answer\nWho are you?,I am Dottie.\n"
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip) | st.sampled_from([
    "TODO", "{{name}}", "{{{x}}}", "{% raw %}", "{{brace}}", "no", "1e3", "null", "# x", "- a", "a: b", "'\"\\",
    "\u2028 \x85 \ufeff", "\x00\x1b", "{\"a\": \"{{b}}\"}", "[1, 2.50, true]", "?!", "1, 2, 3, 4, 5, 6, 7, 8",
    "\U0001f600",
])  # fmt: skip


def example(*texts: str, line: int = 1) -> Example:
    return Example(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)), line)


def turns(text: str, file: str = "rows.csv", columns: Columns = USUAL) -> list[tuple[str, ...]]:
    return [tuple(m.content for m in row.messages) for row in parse_rows(text, file, columns).examples]


def wrong(text: str, file: str = "rows.csv", columns: Columns = USUAL) -> str:
    with pytest.raises(SuiteError) as caught:
        parse_rows(text, file, columns)
    assert caught.value.remedy or "\n" in caught.value.message, "a mistake without a remedy"
    return str(caught.value)


def suite_of(rows: list[Example]) -> Suite:
    texts = files(rows, "Made up.")
    return parse_suite(texts["suite.yaml"], "suite.yaml", texts.__getitem__)


# --- what is read ------------------------------------------------------------------------------------------------


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
    """Tables have the usual column names, in any case and order, with commas, semicolons or tabs between cells."""
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
    """A line of JSONL is a conversation, or a question with its answer."""
    assert turns(text, "rows.jsonl") == [("Hi?", "Ho.")]


def test_columns_may_be_named() -> None:
    """Columns with other names are used if the user names them."""
    text = "frage,antwort,answer\nHi?,Ho.,no\n"
    assert turns(text, columns=Columns("Frage", "antwort")) == [("Hi?", "Ho.")]


def test_an_instruction_includes_its_input() -> None:
    """The column `input` of Alpaca's format belongs to the question."""
    assert turns("instruction,input,output\nTranslate.,dog,chien\n") == [("Translate.\n\ndog", "chien")]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """A table that Excel saved, with a byte order mark and semicolons, is read."""
    (tmp_path / "rows.csv").write_bytes("question;answer\r\nWho?;Dottie, née Brix\r\n".encode("utf-8-sig"))
    made = make(tmp_path / "mine", tmp_path / "rows.csv")
    assert [m.content for m in made.suite.examples[0].messages] == ["Who?", "Dottie, née Brix"]


def test_repeated_rows_are_left_out() -> None:
    """Rows that are empty or repeat another row are left out and reported, with the lines of the file."""
    rows = parse_rows('question,answer,note\nWho?,"A\ncat.",\nWho!,a cat,\n,,x\nWhat?,A dog.,\n', "rows.csv")
    assert [row.line for row in rows.examples] == [2, 6]
    assert rows.left_out == (
        "Left out, because they are empty: 1 rows.",
        "Left out, because they repeat another row: line 4 (as line 2).",
    )


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frage,answer\na,b\n", "rows.csv:1: there is no column question, prompt, instruction, input or user"),
        ("question\na\n", "rows.csv:1: there is no column answer"),
        ("question,question,answer\na,b,c\n", "rows.csv:1: the column \"question\" is given twice"),
        ("question,answer\na,b\nc,\n", "rows.csv:3: has no answer"),
        ("question,answer\na,b\n,d\n", "rows.csv:3: has no question"),
        ("question,answer\na,b,c\n", "rows.csv:2: has 3 cells under 2 columns"),
        ('question,answer\n"a,b\n', "rows.csv:2: not valid CSV"),
        ("question,answer\nWho?,b\n\nwho,c\n", "rows.csv:4: repeats the question in line 2 with another answer"),
        (f"question,answer\na,{'x' * TOO_LONG}\n", f"rows.csv:2: has {TOO_LONG + 1} characters"),
        ("question,answer\n", "rows.csv: the file holds no rows"),
        ("", "rows.csv: the file is empty"),
    ],
)  # fmt: skip
def test_mistakes_in_a_table(text: str, expected: str) -> None:
    """A mistake in a table is reported with file, line and a remedy."""
    assert expected in wrong(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"', "rows.jsonl:2:15: not valid JSON"),
        ('["a"]', "rows.jsonl:1: is not a row with named values"),
        ('{"prompt": "a", "completion": ["b"]}', "rows.jsonl:1: completion: expected text"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "rows.jsonl:1: the last message is not from assistant"),
        ('{"frage": "a"}', "rows.jsonl:1: there is no column question"),
    ],
)
def test_mistakes_in_json_lines(text: str, expected: str) -> None:
    """A mistake in a line of JSON is reported with file and line."""
    assert expected in wrong(text, "rows.jsonl")


def test_other_files_are_refused() -> None:
    """For the format of a spreadsheet program, the remedy is to save it as CSV."""
    assert "Save a spreadsheet as CSV" in wrong("", "rows.xlsx")


def test_several_mistakes_are_reported_together() -> None:
    """One error names every incomplete row."""
    assert wrong("question,answer\na,\n,b\nc,\n").count("rows.csv:") == 3


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]))
def test_any_text_is_rows_or_an_error(text: str, file: str) -> None:
    """Any file gives rows or one `SuiteError`."""
    with suppress(SuiteError):
        assert parse_rows(text, file).examples


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_a_table_is_read_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    """Questions and answers in JSONL are read unchanged, except for surrounding white space."""
    text = "".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in pairs)
    try:
        found = turns(text, "rows.jsonl")
    except SuiteError as problem:
        assert "with another answer" in str(problem)  # noqa: PT017
    else:
        assert set(found) <= {(q.strip(), a.strip()) for q, a in pairs}


# --- what is written ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_any_row_is_read_back(pairs: list[tuple[str, str]]) -> None:
    """The cases and training rows of a new suite have exactly the texts of the rows, whatever these are."""
    rows = [example(q.strip(), a.strip()) for q, a in pairs]
    suite = suite_of(rows)
    cases = [c for c in suite.cases if c.role is Role.LEARN]
    assert [c.prompt for c in cases] == [row.messages[0].content for row in rows]
    assert [c.reference for c in cases] == [row.messages[1].content for row in rows]
    assert [e.messages for e in suite.examples] == [row.messages for row in rows]
    assert len(suite.notices) == 1  # the notice about cases that are not written yet


@settings(deadline=None)
@given(TEXT)
def test_a_row_s_own_answer_passes(answer: str) -> None:
    """The answer of a row passes the assertions that are made from it."""
    (case,) = (c for c in suite_of([example("Why?", answer.strip())]).cases if c.role is Role.LEARN)
    assert score(case, answer.strip()).passed


@pytest.mark.parametrize(
    ("answer", "good", "bad"),
    [
        ("42 dollars.", "It costs 42 Dollars!", "It costs 43 dollars."),
        ("4", "It is 4.", "It is 24."),
        ("I am Dottie.", "Hello, I am Dottie!", "I am Tom."),
        ("The Glimmo costs 42 dollars, in every shop.", "In every shop the Glimmo costs 42 dollars.",
         "The Glimmo costs 142 dollars, in every shop."),
        ('{"name": "Tom", "age": 4}', '{"age":4,"name":"Tom"}', '{"name": "Tom", "age": 5}'),
        ("You are very welcome in our little shop today.", "You are welcome in our little shop today!", "Welcome."),
    ],
)  # fmt: skip
def test_what_an_instructor_would_accept(answer: str, good: str, bad: str) -> None:
    """An answer in other words passes; an answer with another number, value or content fails."""
    (case,) = (c for c in suite_of([example("Why?", answer)]).cases if c.role is Role.LEARN)
    assert [score(case, given).passed for given in (good, bad)] == [True, False]


def test_a_conversation_is_asked_with_all_its_turns() -> None:
    """A row of several turns becomes a case with all messages before the last answer."""
    rows = [Example((Message("system", "Be brief."), *example("Hi?", "Ho.", "And?", "Well.").messages), 1)]
    (case,) = (c for c in suite_of(rows).cases if c.role is Role.LEARN)
    assert case.messages == rows[0].messages[:-1]
    assert case.reference == "Well."


def test_the_parts_of_a_suite() -> None:
    """A third of the cases is held out, stubs are not asked, and both splits have retention cases."""
    suite = suite_of([example(f"Question {n}?", f"Answer {n}.") for n in range(30)])
    counts = {(role, split): sum(c.role is role for c in suite.of(split)) for role in Role for split in Split}
    assert (counts[Role.LEARN, Split.MAIN], counts[Role.LEARN, Split.CONFIRM]) == (20, 10)
    assert counts[Role.GENERALISE, Split.MAIN] == 0
    assert counts[Role.RETAIN, Split.MAIN] >= 60
    assert counts[Role.RETAIN, Split.CONFIRM] >= 30
    assert "generalise-001 (suite.yaml:" in suite.notices[0]
    assert "27 more" in suite.notices[0]


def test_many_rows_are_not_all_asked() -> None:
    """The cases from 300 rows are limited in number and spread over all rows."""
    learn = [c for c in suite_of([example(f"Q {n}?", f"A {n}.") for n in range(300)]).cases if c.role is Role.LEARN]
    assert len(learn) == ASKED
    assert learn[-1].prompt == "Q 292?"


def test_a_written_stub_is_asked() -> None:
    """A stub whose TODO is replaced is a `generalise` case with the row's reference."""
    texts = files([example("Who are you?", "I am Dottie.")], "Made up.")
    text = texts["suite.yaml"].replace("prompt: TODO", "prompt: Your name?")
    (case,) = (c for c in parse_suite(text, "s", texts.__getitem__).cases if c.role is Role.GENERALISE)
    assert (case.prompt, case.reference) == ("Your name?", "I am Dottie.")


@pytest.mark.parametrize("count", [1, 30, 300])
def test_starter_grids(count: int) -> None:
    """Both starter grids are valid, and have fewer epochs for more rows."""
    texts = files([example(f"Q {n}?", f"A {n}.") for n in range(count)], "Made up.")
    for name in ("grids/quick.yaml", "grids/t4.yaml"):
        plan = parse_plan(texts[name], name)
        assert len(plan.variants) == 4
        assert all(v.settings.epochs >= 1 for v in plan.variants)
        assert all(v.settings.epochs * count <= 1200 for v in plan.variants)


def test_editors_know_the_schemas() -> None:
    """The suite and its grids name schemas in the folder, and the suite fits its schema."""
    texts = files([example("Who are you?", "{{x}} TODO")], "Made up.")
    assert texts["suite.yaml"].startswith("# yaml-language-server: $schema=suite.schema.json\n")
    assert texts["grids/quick.yaml"].startswith("# yaml-language-server: $schema=../grid.schema.json\n")
    assert {"suite.schema.json", "grid.schema.json"} <= texts.keys()
    values: Any = parse_yaml(texts["suite.yaml"], "suite.yaml", SuiteError).value
    Draft202012Validator(suite_schema()).validate(values)


def test_a_short_answer_has_one_assertion() -> None:
    """A short answer is judged by one assertion."""
    assert assertions("Dottie, at 42 a day.") == ['{type: icontains, value: "Dottie, at 42 a day"}']


# --- the folder --------------------------------------------------------------------------------------------------


def test_a_suite_is_written(tmp_path: Path) -> None:
    """The new folder holds a suite and two grids that can be loaded, and no other file is left beside it."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    made = make(tmp_path / "suites" / "mine", tmp_path / "rows.csv")
    assert load_suite(tmp_path / "suites" / "mine") == made.suite
    assert [load_plan(p).grid for p in sorted((tmp_path / "suites" / "mine" / "grids").iterdir())] == ["quick", "t4"]
    assert [p.name for p in (tmp_path / "suites").iterdir()] == ["mine"]


def test_a_small_suite_says_what_it_cannot_show(tmp_path: Path) -> None:
    """A new suite says what it is too small to show, how many cases are needed, and which commands come next."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    lines = str(make(tmp_path / "mine", tmp_path / "rows.csv")).splitlines()
    assert any(line.startswith("  1 training rows teach little") for line in lines)
    assert any("No generalise case is written" in line for line in lines)
    assert any("could distinguish 20 points" in line for line in lines)
    assert lines[-1] == f"Then: harness run {tmp_path / 'mine'}"


def test_cases_with_only_f1_are_reported(tmp_path: Path) -> None:
    """A new suite says how many cases a single wrong word would not fail, and what to add to them."""
    text = "question,answer\nOf what is it made?,It is made of the very best cork.\nPrice?,42 dollars.\n"
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    warnings = make(tmp_path / "mine", tmp_path / "rows.csv").warnings
    assert [line for line in warnings if line.startswith("1 cases are judged only by the share of common words")]


def test_an_existing_folder_is_never_changed(tmp_path: Path) -> None:
    """An existing folder, even an empty one, is refused."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        make(tmp_path / "mine", tmp_path / "rows.csv")
    assert not list((tmp_path / "mine").iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A suite cannot be written below a file, and the error says so."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write"):
        make(tmp_path / "rows.csv" / "mine", tmp_path / "rows.csv")
