"""Tests of cases in CSV, JSONL and YAML files in the suite's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from harness.core.suite import Role
from harness.suites import load_suite
from harness.suites.case_files import case_rows
from tests.support.suite_texts import CASE, ROW, refusal, suite


def test_cases_come_from_a_csv() -> None:
    """In a CSV of cases, `__expected` holds an assertion; columns without a fixed meaning are variables.

    Plain text in `__expected` means `equals`.
    """
    csv = (
        "id,role,city,__expected,__expected2,__description\n"
        'a,retain,France,icontains: Paris,"contains-any: x,y",capital\n\n'
        'b,,"Ita\nly",Rome: eternal,,\n'
    )
    found = suite("prompts: ['Capital of {{city}}?']\ntests: file://c.csv", c_dot_csv=csv).cases
    assert [(c.id, c.role, str(c.place)) for c in found] == [
        ("a", Role.RETAIN, "c.csv:2"),
        ("b", Role.LEARN, "c.csv:4"),
    ]
    assert [(a.type, a.value) for a in found[0].assertions] == [("icontains", "Paris"), ("contains-any", ["x", "y"])]
    assert [(a.type, a.value) for a in found[1].assertions] == [("equals", "Rome: eternal")]
    assert found[1].prompt == "Capital of Ita\nly?"


def test_a_csv_may_contain_prompts() -> None:
    """If the suite has no prompts, each case takes its prompt from the column `prompt` of the CSV."""
    (found,) = suite("tests: file://c.csv", c_dot_csv="prompt,__expected\nHi,is-json\n").cases
    assert (found.prompt, found.assertions[0].type) == ("Hi", "is-json")


def test_cases_come_from_several_files() -> None:
    """A suite's list of tests may contain both cases and names of JSONL and YAML files; each case knows its place."""
    line = '{"id": "j", "prompt": "p", "assert": [{"type": "equals", "value": "v"}]}\n'
    more = CASE.replace("Hi", "Hu")
    found = suite(f"tests:\n{CASE}\n- file://a.jsonl\n- file://b.yaml", a_dot_jsonl=line, b_dot_yaml=f"# more\n{more}")
    assert [(c.prompt, str(c.place)) for c in found.cases] == [
        ("Hi", "suite.yaml:2"),
        ("p", "a.jsonl:1"),
        ("Hu", "b.yaml:2"),
    ]


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        ("", "c.csv:1: has no header"),
        ("a,a\n1,2", 'c.csv:1: the column "a" is given twice'),
        ("a,__expcted\n1,2", 'c.csv:1: unknown column "__expcted"\nDid you mean "__expected"?'),
        ("a,__Expected3\n1,2", 'c.csv:1: unknown column "__Expected3"\nDid you mean "__expected3"?'),
        ("a,__provider\n1,2", "it is a variable, rename it: names with two underscores are promptfoo's own"),
        ("a,__provideroutput\n1,2", 'Did you mean "__providerOutput"?'),
        ("a,_expected\n1,2", 'unknown column "_expected"\nDid you mean "__expected"?'),
        ("a,__metadata\n1,2", 'Write "__metadata:NAME".'),
        ("a,__config:x\n1,2", 'Write "__config:__expected:threshold".'),
        ("a,__expected\n1,2,3", "c.csv:2: has 3 cells under 2 columns"),
        ('a,__expected\n1,"2', "c.csv:2: not valid CSV"),
        ("a,__expected\n1,icontain:x", 'c.csv:2: unknown assertion type "icontain"\nDid you mean "icontains"?'),
        ("a,__expected\n1,webhook:http://x", "webhook: c.csv:2"),
        ("a,__expected,__threshold\n1,x,much", 'c.csv:2: __threshold: expected a number, found "much"'),
        ("a,__expected\n1,", "c.csv:2: this case has no assertions"),
        ("b,__expected\n1,x", 'c.csv:2: prompts[0]: there is no variable "a"'),
        ("a,role,__expected\n1,lern,x", 'c.csv:2: unknown role "lern"'),
        ("a,__expected\n1,regex:(", "c.csv:2: not a regular expression"),
        ("a,__expected", "there are no cases"),
    ],
)
def test_a_bad_csv_is_refused_at_its_line(csv: str, expected: str) -> None:
    """If a CSV of cases has a mistake, the error gives the file and the line."""
    assert expected in refusal("prompts: ['{{a}}']\ntests: file://c.csv", c_dot_csv=csv)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "suites" / "greeting"
    found.mkdir(parents=True)
    (found / "suite.yaml").write_text(f"tests:\n{CASE}\n", encoding="utf-8")
    (found / "train.jsonl").write_text(ROW + "\n", encoding="utf-8")
    (tmp_path / "secret.csv").write_text("prompt,__expected\nx,y\n", encoding="utf-8")
    return found


@pytest.mark.parametrize(
    "name", ["../../secret.csv", "/etc/passwd.csv", "link.csv", "linked/secret.csv", "a/../../x.csv"]
)
def test_no_file_outside_the_folder_is_read(folder: Path, name: str) -> None:
    """If a suite names a file outside its folder, by `..`, an absolute path or a link, the suite is refused."""
    (folder / "link.csv").symlink_to(folder.parent.parent / "secret.csv")
    (folder / "linked").symlink_to(folder.parent.parent)
    (folder / "suite.yaml").write_text(f"tests: file://{name}\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"suite\.yaml:1:8: .* leads out of the suite's folder"):
        load_suite(folder)


def test_a_folder_is_not_a_file(folder: Path) -> None:
    """If a suite names a folder instead of a file of cases, the error says that there is no such file."""
    (folder / "sub.csv").mkdir()
    (folder / "suite.yaml").write_text("tests: file://sub.csv\n", encoding="utf-8")
    with pytest.raises(SuiteError, match="there is no file"):
        load_suite(folder)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_too_many_rows_are_refused(kind: str) -> None:
    """A file with more than 200,000 rows is refused at the first row beyond them."""
    text = "{}\n" * 200_001 if kind == "jsonl" else "prompt\n" + "x\n" * 200_001
    line = 200_001 if kind == "jsonl" else 200_002
    with pytest.raises(SuiteError, match=rf"^rows\.{kind}:{line}: the file has more than 200,000 rows"):
        list(case_rows(f"rows.{kind}", text))


def test_thresholds_in_columns_of_a_csv() -> None:
    """A column `__config:__expected2:threshold` holds the threshold of the second assertion of a row."""
    header = "x,__expected,__expected2,__config:__expected:threshold,__config:__expected2:threshold"
    csv = f"{header}\n1,rouge-n: a,f1: b,0.4,\n"
    (found,) = suite("prompts: ['{{x}}']\ntests: file://c.csv", c_dot_csv=csv).cases
    assert [one.threshold for one in found.assertions] == [0.4, None]


def test_an_unknown_column_of_settings_is_refused() -> None:
    """A column `__config:` for anything else than a threshold is refused, as by promptfoo."""
    csv = "x,__expected,__config:__expected:weight\n1,contains: a,2\n"
    message = refusal("prompts: ['{{x}}']\ntests: file://c.csv", c_dot_csv=csv)
    assert 'c.csv:1: unknown column "__config:__expected:weight"' in message


def test_json_with_escaped_surrogates(tmp_path: Path) -> None:
    """A JSON file of cases may hold characters that are escaped as a pair of surrogates."""
    cases = r'[{"prompt": "a \ud83d\ude00 \\ud83d\\ude00", "assert": [{"type": "is-json"}]}]'
    (tmp_path / "c.json").write_text(cases, encoding="utf-8")
    (tmp_path / "suite.yaml").write_text("tests: c.json\n", encoding="utf-8")
    assert load_suite(tmp_path).cases[0].prompt == "a \U0001f600 \\ud83d\\ude00"


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_delimiter_is_refused(mark: str) -> None:
    """A CSV file of cases whose columns are not separated by commas is refused with what to do."""
    text = f"question{mark}__expected\nWhat?{mark}contains: x\n"
    with pytest.raises(
        SuiteError, match="other characters than commas between its columns\nSave it as CSV with commas"
    ):
        list(case_rows("c.csv", text))
    assert list(case_rows("c.csv", text.replace(mark, ",")))
