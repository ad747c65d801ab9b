"""Tests that tables of spreadsheets, forms, Anki and Quizlet are read."""

from __future__ import annotations

import pytest

from harness.core.errors import SuiteError
from harness.suites.rows.records import USUAL, Columns
from harness.suites.rows.tables import table_records


def cells(text: str, columns: Columns = USUAL) -> list[dict[str, str]]:
    return [record.cells for record in table_records(text, "rows.csv", columns).rows]


ROW = {"question": "Wann?", "answer": "Um 9,5."}


@pytest.mark.parametrize(
    "text",
    [
        "question;answer\nWann?;Um 9,5.\n",
        'question,answer\nWann?,"Um 9,5."\n',
        '"question", "answer"\n"Wann?", "Um 9,5."\n',
        "question\tanswer\rWann?\tUm 9,5.\r",
        "SEP=;\r\nquestion;answer\r\nWann?;Um 9,5.\r\n",
        '"sep=|"\nquestion|answer\nWann?|Um 9,5.\n',
        "question;answer\nWann?;Um 9,5.;;\n",
    ],
)
def test_delimiters(text: str) -> None:
    """The delimiter is found by the header, or named by `sep=`; empty cells at the end of a row are ignored."""
    assert cells(text) == [ROW]


def test_lines_are_counted_with_those_before_the_header() -> None:
    """The numbers of rows are the lines of the file, also after `sep=` and Anki's directives."""
    assert table_records("sep=;\nquestion;answer\na;b\n", "rows.csv", USUAL).rows[0].number == 3
    assert table_records("#separator:tab\n#html:true\na\tb\n", "rows.txt", USUAL).rows[0].number == 3


def test_a_column_without_a_name_has_its_number() -> None:
    """A column whose name is blank is called by its number, so that it can be named as left out."""
    assert cells("question,answer,\na,b,c\n") == [{"question": "a", "answer": "b", "column 3": "c"}]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("<div>Hallo <b>Welt</b></div><div>zwei</div>", "Hallo Welt\nzwei"),
        ("a<br>b<br />c", "a\nb\nc"),
        ("1 &lt; 2 &amp;&nbsp;3", "1 < 2 & 3"),
        ("Was [sound:a.mp3]", "Was"),
        ("<style>.a{}</style>a<!-- b --><!-- c -->d<!--", "ad<!--"),
        ("10<sup>-3</sup> H<sub>2</sub>O", "10⁻³ H₂O"),
        ("x<SUP>n+<i>1</i></SUP>, a<sub>i</sub>", "x^(n+1), a_(i)"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
    ],
)
def test_html_of_anki_becomes_text(cell: str, expected: str) -> None:
    """In an export of Anki with `#html:true`, tags and entities of a cell become text, and sounds are left out."""
    (found,) = cells(f"#separator:tab\n#html:true\n{cell}\tb\n")
    assert found["1"] == expected


def test_columns_of_anki_that_are_no_fields() -> None:
    """The columns that Anki's directives call notetype, deck, guid and tags are not read as question or answer."""
    text = (
        "#separator:tab\n#html:false\n#notetype column:1\n#deck column:2\n#tags column:5\nBasic\tA\tWann?\tUm 9.\tx\n"
    )
    found = table_records(text, "rows.txt", USUAL)
    assert (found.columns.prompt, found.columns.answer) == ("3", "4")
    assert found.rows[0].cells == {"notetype": "Basic", "deck": "A", "3": "Wann?", "4": "Um 9.", "tags": "x"}


def test_quotation_marks_of_quizlet_are_characters() -> None:
    """In a table with tabs that is not valid CSV, quotation marks are characters of the cells."""
    assert cells('"Hi" he said\t"Hallo" sagte er\nb\tc "d\n') == [
        {"1": '"Hi" he said', "2": '"Hallo" sagte er'},
        {"1": "b", "2": 'c "d'},
    ]


@pytest.mark.parametrize("text", ["dog\tchien\ncat\tchat\n", "Wann?,Um neun.\nWo?,Hier.\n"])
def test_files_without_header(text: str) -> None:
    """Two columns with a tab between them, or a question beside its answer, need no header; a notice shows the row."""
    found = table_records(text, "rows.txt", USUAL)
    assert len(found.rows) == 2
    assert "If that is a header, rename its columns to question and answer." in found.notices[0]


def test_lines_before_the_header_are_removed_as_the_remedy_says() -> None:
    """If a title stands before the header, the error names the line of the header; without the title it is read."""
    with pytest.raises(SuiteError, match=r"Line 3 names the columns\. Remove the lines before it"):
        cells("FAQ;\n\nquestion;answer\nWann?;Um 9,5.\n")
    assert cells("question;answer\nWann?;Um 9,5.\n") == [ROW]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_table_has_no_rows(text: str) -> None:
    """An empty file is a table without rows."""
    assert cells(text) == []


def test_numbers_do_not_name_columns_of_a_header() -> None:
    """If a file has a header, the numbers of columns are no names, and the header is not read as a row."""
    with pytest.raises(SuiteError, match='there is no column "1"\nThe columns are: "question" and "answer"'):
        cells("question,answer\na,b\n", Columns("1", "2"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FAQ;;\n\nFrage;Antwort;Preis\na;b;c\n", "rows.csv:1: is not the line with the names of the columns"),
        ("Unsere FAQ\t\nFrage\tAntwort\na\tb\n", "rows.csv:1: is not the line with the names of the columns"),
        ("question,answer,answer\n", 'rows.csv:1: the column "answer" is given twice'),
        ("sep=;\na;b\n1;2\n", "rows.csv:2: there is no column question"),
        ("question,answer\na,\x00\n", "rows.csv:2: contains a NUL character"),
        ('question,answer\na,"b\n', "rows.csv:2: not valid CSV"),
        (f"question,answer\na,{'x' * 200_000}\n", "rows.csv:2: not valid CSV: field larger than field limit"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    """A table that cannot be read is an error with its line and a remedy."""
    with pytest.raises(SuiteError) as caught:
        table_records(text, "rows.csv", USUAL)
    assert str(caught.value).startswith(expected)
    assert caught.value.remedy


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_two_names_with_the_same_word_are_two_columns(mark: str) -> None:
    """A header with two names that contain a word for questions is split, and the remedy names a column that works."""
    text = mark.join(["First question", "Second question", "My answer"]) + f"\nWann?{mark}Wo?{mark}Hier.\n"
    with pytest.raises(SuiteError) as caught:
        cells(text)
    assert '"First question", "Second question" and "My answer"' in str(caught.value)
    assert "--prompt-column" in caught.value.remedy
    assert cells(text, Columns(prompt="Second question"))[0]["My answer"] == "Hier."


def test_one_name_cannot_be_both_columns() -> None:
    """A table of one column whose name contains words for questions and answers has no column of its own for either."""
    with pytest.raises(SuiteError, match="Write each question and its answer on one line, with a tab between"):
        cells("Question and answer\nWann? Um 9.\n")
