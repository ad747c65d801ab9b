"""Tests of how promptfoo's variables are read: lists, files, and variables that name others."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from harness.suites.promptfoo.variables import MAX_COMBINATIONS
from tests.support.suite_texts import suite_in, texts

HEAD = "prompts: ['{{a}}|{{b}}']\n"


def one(variables: str, head: str = HEAD) -> str:
    return f"{head}tests:\n- assert: [{{type: contains, value: '{{{{a}}}}'}}]\n  vars: {variables}\n"


def test_a_list_makes_a_case_for_each_value(tmp_path: Path) -> None:
    """A list of texts makes a case for each; several lists make all combinations, also for assertions."""
    found = suite_in(tmp_path, {"suite.yaml": one("{a: [x, y], b: [1, 2]}").replace("[1, 2]", "['1', '2']")})
    assert texts(found) == ["x|1", "x|2", "y|1", "y|2"]
    assert [case.assertions[0].value for case in found.cases] == ["x", "x", "y", "y"]


def test_a_list_of_other_values_is_one_value(tmp_path: Path) -> None:
    """A list that does not begin with a text is one value, as in promptfoo, which writes it as JavaScript does."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one("{a: [1, 2.0], b: {c: 1}}")})) == ["1,2|[object Object]"]


def test_an_empty_list_is_one_value(tmp_path: Path) -> None:
    """An empty list is one value, whose text is empty; its case is not left out."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one("{a: x, b: []}")})) == ["x|"]


def test_lists_are_not_expanded_if_that_is_disabled(tmp_path: Path) -> None:
    """With the option disableVarExpansion, a list is one value."""
    text = one("{a: [x, y], b: z}") + "  options: {disableVarExpansion: true}\n"
    assert texts(suite_in(tmp_path, {"suite.yaml": text})) == ["x,y|z"]


def test_the_number_of_combinations_is_bounded(tmp_path: Path) -> None:
    """If lists make more cases than the limit, the suite is refused before they are built."""
    variables = "{" + ", ".join(f"v{i}: [x, y, z]" for i in range(40)) + "}"
    with pytest.raises(SuiteError, match=f"more than {MAX_COMBINATIONS:,} cases"):
        suite_in(tmp_path, {"suite.yaml": one(variables)})


def test_files_are_read(tmp_path: Path) -> None:
    """A variable file://NAME is the stripped text of the file; that of a YAML file is its content as JSON."""
    files = {
        "suite.yaml": one("{a: file://a.txt, b: file://b.yaml}"),
        "a.txt": "\ufeff teal \n",
        "b.yaml": "{x: [1.0, t]}",
    }
    found = suite_in(tmp_path, files)
    assert texts(found) == ['teal|{"x":[1,"t"]}']
    assert found.cases[0].assertions[0].value == "teal"


def test_a_pattern_makes_a_case_for_each_file(tmp_path: Path) -> None:
    """A variable that is a pattern of files makes a case for each of them."""
    files = {"suite.yaml": one("{a: 'file://t/*.txt', b: z}"), "t/1.txt": "one", "t/2.txt": "two"}
    assert texts(suite_in(tmp_path, files)) == ["one|z", "two|z"]


def test_variables_may_name_variables(tmp_path: Path) -> None:
    """`{{name}}` in a variable is replaced before the prompt is rendered, also through several variables."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one("{a: 'is {{b}}', b: '{{c}}!', c: teal}")})) == ["is teal!|teal!"]


def test_inserting_follows_javascript(tmp_path: Path) -> None:
    """Where a variable is inserted into another one, `$$` has the meaning that JavaScript's `replace` gives it."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one("{a: 'p {{b}}', b: '5$$ $1'}")})) == ["p 5$ $1|5$$ $1"]


@pytest.mark.parametrize(("value", "expected"), [("null", "null|"), ("true", "true|true"), ("[1, 2]", "1,2|1,2")])
def test_inserted_values_become_text(tmp_path: Path, value: str, expected: str) -> None:
    """A value that is inserted into another variable becomes text as in JavaScript, where nothing is "null"."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one(f"{{a: '{{{{b}}}}', b: {value}}}")})) == [expected]


def test_variables_that_name_each_other_end(tmp_path: Path) -> None:
    """Variables that name each other are replaced as often as by promptfoo, and end there."""
    (found,) = texts(suite_in(tmp_path, {"suite.yaml": one("{a: '{{b}}{{b}}', b: 'x{{a}}'}")}))
    assert len(found) < 10_000


@pytest.mark.parametrize("value", ["file://a.py", "file://a.js", "package:x", "file://a.png", "file://a.pdf"])
def test_other_variables_are_unsupported(tmp_path: Path, value: str) -> None:
    """A variable from code, or from a file that is no text, is unsupported; it is not inserted as it stands."""
    with pytest.raises(SuiteError, match=r"not supported:\nvariables (from code|that are no text)"):
        suite_in(tmp_path, {"suite.yaml": one(f"{{a: '{value}', b: z}}")})


def test_a_missing_file_is_refused_at_its_variable(tmp_path: Path) -> None:
    """If the file of a variable does not exist, the error gives the place of the variable."""
    with pytest.raises(SuiteError, match=r'suite\.yaml:4:13: there is no file "no\.txt"'):
        suite_in(tmp_path, {"suite.yaml": one("{b: z, a: file://no.txt}").replace("{b: z, a", "{a")})


def test_a_missing_variable_is_skipped_on_request(tmp_path: Path) -> None:
    """A case whose prompt names a missing variable is refused; if unsupported features are skipped, it is left out."""
    text = one("{a: x}") + "- {vars: {a: y, b: z}, assert: [{type: contains, value: x}]}\n"
    with pytest.raises(SuiteError, match='there is no variable "b"'):
        suite_in(tmp_path, {"suite.yaml": text})
    found = suite_in(tmp_path, {}, skip_unsupported=True)
    assert texts(found) == ["y|z"]
    assert found.notices[:2] == (
        "Skipped, because it is not supported: variables that are not defined (once).",
        "Left out, because no supported assertion remains: 1 of the cases.",
    )


def test_variables_in_files(tmp_path: Path) -> None:
    """`vars` may be the path of a YAML file, or several, of which later ones replace values of earlier ones."""
    files = {"suite.yaml": one("[a.yaml, b.yaml]"), "a.yaml": "{a: 1, b: 2}", "b.yaml": "{b: 3}"}
    assert texts(suite_in(tmp_path, files)) == ["1|3"]


def test_patterns_of_files_with_variables(tmp_path: Path) -> None:
    """`vars` may be a pattern of files with different variables; promptfoo does not order files with the same ones."""
    files = {"suite.yaml": one("v/*.yaml"), "v/a.yaml": "{a: 1}", "v/b.yaml": "{b: 3}"}
    assert texts(suite_in(tmp_path, files)) == ["1|3"]
    with pytest.raises(SuiteError, match="a pattern of files that give a variable several values"):
        suite_in(tmp_path, {"v/b.yaml": "{a: 2, b: 3}"})
    with pytest.raises(SuiteError, match=r'no file fits "w/\*\.yaml"'):
        suite_in(tmp_path, {"suite.yaml": one("w/*.yaml")})


def test_numbers_are_written_as_in_javascript(tmp_path: Path) -> None:
    """Numbers and truth values are inserted as JavaScript writes them, and nothing as an empty text."""
    assert texts(suite_in(tmp_path, {"suite.yaml": one("{a: 1.50, b: 007}")})) == ["1.5|7"]
    (tmp_path / "more").mkdir()
    assert texts(suite_in(tmp_path / "more", {"suite.yaml": one("{a: yes, b: true}")})) == ["yes|true"]
