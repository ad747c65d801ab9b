"""Tests of how suites, cases and training rows are read, and how mistakes are reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.core.suite import Reducer, Role, Split
from harness.core.yaml import MAX_CHARACTERS
from harness.suites import load_examples, load_suite, parse_examples, parse_suite
from tests.support.suite_texts import CASE, ROW, case, files, refusal, suite


def test_a_case_is_read_whole() -> None:
    """If a case has every possible field, all of them are read."""
    text = """
id: price
role: avoid
split: confirm
critical: true
group: prices
description: The price.
messages: [{role: system, content: Be brief.}, {role: user, content: "What does {{what}} cost?"}]
vars: {what: tea}
reference: 40 dollars
assert: [{type: not-icontains, value: "{{what}}", weight: 2}]
"""
    (found,) = case(text).cases
    assert (found.id, found.role, found.split, found.group) == ("price", Role.AVOID, Split.CONFIRM, "prices")
    assert [m.content for m in found.messages] == ["Be brief.", "What does tea cost?"]
    assert (found.prompt, found.reference, found.description) == ("What does tea cost?", "40 dollars", "The price.")
    assert found.critical
    (assertion,) = found.assertions
    assert (assertion.type, assertion.negated, assertion.value, assertion.weight) == ("icontains", True, "tea", 2.0)
    assert str(found.place) == "suite.yaml:2"


def test_critical_by_default() -> None:
    """If `defaultTest` says that cases are critical, a single case may still say that it is not."""
    rows = "[{id: a, prompt: p}, {id: b, prompt: q, critical: false}]"
    found = suite(f"defaultTest: {{critical: true, assert: [{{type: contains, value: x}}]}}\ntests: {rows}\n")
    assert [case.critical for case in found.cases] == [True, False]


def test_the_suites_own_fields_are_read() -> None:
    """A suite's objective, margin, decoding, system prompt and description are read."""
    found = suite(
        "description: d\nobjective: retain\nmargin: 5\nsystem_prompt: Be kind.\n"
        f"decoding: {{max_new_tokens: 9, stop: ['###']}}\ntests:\n{CASE}"
    )
    assert (found.description, found.objective, found.margin, found.system_prompt) == ("d", Role.RETAIN, 5, "Be kind.")
    assert (found.decoding.max_new_tokens, found.decoding.stop) == (9, ("###",))


def test_repeats_are_read() -> None:
    """Temperature, repeats and reducer are read. By default, each case is asked once and decoded greedily."""
    drawn = suite(f"decoding: {{temperature: 0.7}}\nrepeats: 5\nreducer: any\ntests:\n{CASE}")
    plain = suite(f"tests:\n{CASE}")
    assert (drawn.decoding.temperature, drawn.repeats, drawn.reducer) == (0.7, 5, Reducer.ANY)
    assert (plain.decoding.temperature, plain.repeats, plain.reducer) == (0.0, 1, Reducer.MEAN)


def test_training_rows_are_messages_or_pairs() -> None:
    """A training row may be a conversation, or a prompt with its completion."""
    rows = parse_examples(f'{ROW}\n\n{{"prompt": "a", "completion": "b"}}\n'.encode(), "train.jsonl")
    assert [[m.content for m in row.messages] for row in rows] == [["Hi", "Ho"], ["a", "b"]]
    assert [row.line for row in rows] == [1, 3]


def test_a_line_separator_does_not_end_a_row() -> None:
    """If a training row contains U+2028 (line separator), the row does not end there."""
    (row,) = parse_examples('{"prompt": "a\u2028b", "completion": "c"}'.encode(), "train.jsonl")
    assert row.messages[0].content == "a\u2028b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "suite.yaml:1:1: expected a mapping"),
        ("tests: [", "suite.yaml:"),
        ("tests: []\ntests: []", 'suite.yaml:2:1: the key "tests" is given twice, first in line 1'),
        ("a: *x", "suite.yaml:1:4: the alias *x stands for nothing"),
        ("a: &x [*x]", "suite.yaml:1:8: the alias *x stands for nothing"),
        ("a: &x 1\nb: {<<: *x}", "suite.yaml:2:5: << adds the keys of a mapping"),
        ("a: !!python/object/apply:os.system [ls]", "suite.yaml:1:4: tags are not accepted"),
        ("[a]: 1", "suite.yaml:1:1: this key is not plain text"),
        ("a: 1\n---\nb: 1", "suite.yaml:2:1: a second document begins here"),
        ("a: \x07", "suite.yaml:1:4: contains the unprintable character U+0007"),
        ("tests: []\n" + "a: " + "9" * 5000, "suite.yaml:2:4: a number with too many digits"),
        (f"test:\n{CASE}", 'unknown key "test"\nDid you mean "tests"?'),
        (f"tests:\n{CASE}\nmargin: lots", 'suite.yaml:3:9: margin: expected a number, found "lots"'),
        (f"tests:\n{CASE}\nmargin: .nan", "suite.yaml:3:9: margin"),
        (f"tests:\n{CASE}\nobjective: lern", 'suite.yaml:3:12: unknown objective "lern"\nDid you mean "learn"?'),
        (f"tests:\n{CASE}\ndecoding: {{max_tokens: 1}}", "suite.yaml:3:12: unknown key"),
        ("tests: [7]", "suite.yaml:1:9: expected a mapping of names to values, found 7"),
        ("tests: file://none.csv", 'suite.yaml:1:8: there is no file "none.csv"'),
        ("tests: cases.csv", 'suite.yaml:1:8: there is no file "cases.csv"'),
        (f"repeats: 3\ntests:\n{CASE}", "suite.yaml:1:10: 3 repeats at temperature 0 give the same answer\nWrite"),
        (f"repeats: 0\ntests:\n{CASE}", "suite.yaml:1:10: repeats: should be greater than or equal to 1, found 0"),
        ("decoding: {max_new_tokens: 1000000000000}", "suite.yaml:1:28: max_new_tokens: should be less"),
        (f"reducer: median\ntests:\n{CASE}", 'suite.yaml:1:10: unknown reducer "median"'),
        (f"decoding: {{temperature: -1}}\ntests:\n{CASE}", "suite.yaml:1:25: temperature: should be greater"),
        (f"decoding: {{temperature: .nan}}\ntests:\n{CASE}", "suite.yaml:1:25: temperature"),
        (f"tests:\n{CASE}\ntrain: file://none.jsonl", 'suite.yaml:3:8: there is no file "none.jsonl"'),
        (f"tests:\n{CASE}\ntrain: train.jsonl", "suite.yaml:3:8: expected file://NAME"),
    ],
)  # fmt: skip
def test_a_bad_suite_is_refused_at_its_place(text: str, expected: str) -> None:
    """If a suite has a mistake, the error gives line and column."""
    assert expected in refusal(text)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{}", "has no question"),
        ("[1]", "is not a row with named values"),
        ('{"messages": []}', "messages: is empty"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "the last message is not from assistant"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', 'message 1 has the unknown role "boss"'),
        ('{"messages": [{"role": "user", "content": ""}]}', "message 1 is empty"),
        ('{"prompt": "x"}', "has no answer"),
        ('{"prompt": "x", "completion": {"a": 4}}', "completion: expected text, found a mapping"),
        ("{'prompt': 'x'}", "not valid JSON"),
        ('{"prompt": "x", "prompt": "y"}', 'the key "prompt" is given twice'),
        ('{"prompt": "\\ud800", "completion": "x"}', "not valid JSON"),
        ('{"prompt": NaN}', "NaN is not a JSON number"),
        ("[" * 20_000 + "]" * 20_000, "is nested too deep"),
        ('{"prompt": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_a_bad_training_row_is_refused_at_its_line(row: str, expected: str) -> None:
    """If a training row has a mistake, the error gives the file and the line."""
    with pytest.raises(SuiteError) as caught:
        parse_examples(f"{ROW}\n{row}\n".encode(), "train.jsonl")
    assert str(caught.value).startswith("train.jsonl:2")
    assert expected in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    """If a suite has several mistakes, one error reports all of them with their places, in the order of the file."""
    message = refusal("tests:\n- {prompt: a, rol: learn}\n- {promt: b}\n- {prompt: c, split: x}")
    assert [line.split(": ")[0] for line in message.splitlines()] == [
        "suite.yaml:2:15",
        "suite.yaml:3:4",
        "suite.yaml:4:22",
    ]


def test_an_alias_bomb_is_refused() -> None:
    """If the aliases of a suite stand for more values than the limit, it is refused at the alias that exceeds it."""
    names = "abcdefghijklmnopqrstuvwxyz"
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise(names))
    assert "the aliases stand for more than 50,000 values" in refusal(bomb)


def test_nested_aliases_are_bounded() -> None:
    """If aliases nest values deeper than the limit, the suite is refused."""
    names = [f"n{i}" for i in range(40)]
    deep = "n0: &n0 [x]\n" + "".join(f"{b}: &{b} [*{a}]\n" for a, b in pairwise(names))
    assert "nested more than 32 levels deep" in refusal(deep)


def test_aliases_and_merge_keys_are_read() -> None:
    """An alias stands for the anchored value; a merge key adds keys, and keys of the mapping itself take precedence."""
    (first, second) = suite("""
defaultTest: {options: {}}
metadata: {common: &common [{type: contains, value: teal}], case: &case {role: retain, assert: *common}}
tests:
- {prompt: a, assert: *common}
- {<<: *case, prompt: b, role: avoid}
""").cases
    assert [(c.role, c.assertions[0].value) for c in (first, second)] == [(Role.LEARN, "teal"), (Role.AVOID, "teal")]


def test_size_is_bounded() -> None:
    """If a suite is larger than 4 MiB, it is refused."""
    assert "larger than 4 MiB" in refusal("#" * (MAX_CHARACTERS + 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "suites" / "greeting"
    found.mkdir(parents=True)
    (found / "suite.yaml").write_text(f"tests:\n{CASE}\n", encoding="utf-8")
    (found / "train.jsonl").write_text(ROW + "\n", encoding="utf-8")
    (tmp_path / "secret.csv").write_text("prompt,__expected\nx,y\n", encoding="utf-8")
    return found


def test_a_suite_is_named_by_its_folder_or_its_file(folder: Path) -> None:
    """A suite may be given by its folder or its suite.yaml. Either way it has the folder's name and training rows."""
    assert load_suite(folder) == load_suite(str(folder / "suite.yaml"))
    assert load_suite(folder).name == "greeting"
    assert load_suite(folder).examples == load_examples(folder / "train.jsonl")


@pytest.mark.parametrize("name", ["greting", "greeting/suit.yaml", "none/suite.yaml"])
def test_the_error_for_a_missing_suite_lists_the_others(folder: Path, name: str) -> None:
    """If there is no suite at a path, the remedy names the existing suites."""
    with pytest.raises(SuiteError, match="there is no such suite") as caught:
        load_suite(folder.parent / name)
    assert str(folder) in caught.value.remedy


def test_a_suite_that_is_a_link_to_another_folder(folder: Path) -> None:
    """If suite.yaml is a link to a file of another folder, the suite is refused, and nothing of the file is shown."""
    (folder / "private").write_text("TOP-SECRET", encoding="utf-8")
    (folder / "s").mkdir()
    (folder / "s" / "suite.yaml").symlink_to("../private")
    with pytest.raises(SuiteError, match=r"suite\.yaml leads out of the suite's folder") as raised:
        load_suite(folder / "s")
    assert "SECRET" not in str(raised.value)
    with pytest.raises(SuiteError, match="expected a mapping"):
        load_suite(folder / "s", root=folder)


def test_a_link_to_itself(folder: Path) -> None:
    """A file that is a link to itself is an error that names it."""
    (folder / "s").mkdir()
    (folder / "s" / "suite.yaml").write_text("tests: file://cases.yaml", encoding="utf-8")
    (folder / "s" / "cases.yaml").symlink_to("cases.yaml")
    with pytest.raises(SuiteError, match=r"cases\.yaml: is a link that leads nowhere\nReplace it by a file"):
        load_suite(folder / "s")


def test_other_encodings_are_refused(folder: Path) -> None:
    """If a file is not UTF-8, the error gives the first line that is not."""
    (folder / "train.jsonl").write_bytes(ROW.encode() + b"\n\xff\xfe\n")
    with pytest.raises(SuiteError, match=r"train\.jsonl:2: is not UTF-8"):
        load_suite(folder)


def test_a_byte_order_mark_is_ignored(folder: Path) -> None:
    """If a file begins with a byte order mark, as Windows editors write it, the mark is ignored."""
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + ROW.encode())
    assert len(load_suite(folder).examples) == 1


keys = st.sampled_from(["tests", "prompts", "defaultTest", "assert", "type", "value", "vars", "prompt", "messages",
                        "role", "content", "id", "weight", "margin", "decoding", "train", "reference"])  # fmt: skip

leaves = st.sampled_from(
    [None, True, 1, 0.5, "", "user", "file://x.csv", "file://../x", "equals", "regex", "(", "{{a}}", "is-json", "learn"]
)

shapes = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=25,
)


@settings(deadline=None)
@given(st.text() | st.text(alphabet="[]{}:-,&*!|>#'\"%@`~ \n\tabc10.e"))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Any text is read as a suite or raises a `SuiteError`."""
    _suite_or_error(lambda: suite(text))


@settings(deadline=None)
@given(st.dictionaries(keys, shapes, max_size=6))
def test_no_shape_breaks_the_reader(value: Any) -> None:
    """Any values under the known keys are read as a suite or raise a `SuiteError`."""
    _suite_or_error(lambda: suite(json.dumps(value), x_dot_csv="a,__expected\n1,2"))


@settings(deadline=None)
@given(st.text() | st.text(alphabet='abc_,:"\n\r\x00'), st.sampled_from(["csv", "jsonl", "yaml", "txt"]))
def test_no_rows_break_the_reader(text: str, suffix: str) -> None:
    """Any file of cases or training rows is read or raises a `SuiteError`."""
    _suite_or_error(lambda: parse_suite(f"tests: file://c.{suffix}", "suite.yaml", lambda _: text))
    _suite_or_error(lambda: parse_examples(text.encode(), "train.jsonl"))


@settings(deadline=None)
@given(st.text(alphabet="ab()[]{}*+?|\\^$.,019<>:=!-Pp&~"))
def test_no_pattern_breaks_the_reader(pattern: str) -> None:
    """Any text as the pattern of a `regex` assertion is read or raises a `SuiteError`."""
    test = {"prompt": "p", "assert": [{"type": "regex", "value": pattern}]}
    _suite_or_error(lambda: suite(json.dumps({"tests": [test]})))


def _suite_or_error(read: Callable[[], object]) -> None:
    with suppress(SuiteError):
        read()


@pytest.mark.parametrize(("system", "warned"), [("Be brief.", False), ("Be long.", True), ("", True)])
def test_a_system_prompt_that_no_row_has_is_a_warning(system: str, warned: bool, tmp_path: Path) -> None:
    """If no training row has the suite's system prompt, a notice says so, with its place and a remedy."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    row = {"messages": [{"role": "system", "content": system}, *messages] if system else messages}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    case = {"id": "a", "role": "learn", "prompt": "Hi", "assert": [{"type": "contains", "value": "Hello"}]}
    (tmp_path / "suite.yaml").write_text(json.dumps({"system_prompt": "Be brief.", "tests": [case]}), encoding="utf-8")
    notices = load_suite(tmp_path).notices
    assert len(notices) == int(warned)
    assert all("asked with the system_prompt (suite.yaml:1:" in notice for notice in notices)


@pytest.mark.parametrize(("system", "warned"), [("Be brief.", True), ('Be "brief"\nand kind.', True), ("", False)])
def test_a_system_prompt_that_no_case_has_is_a_warning(system: str, warned: bool, tmp_path: Path) -> None:
    """If rows have a system message and no case has one, a notice says so, and names the line that mends it."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    row = {"messages": [{"role": "system", "content": system}, *messages] if system else messages}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    tests = "tests: [{prompt: Hi, assert: [{type: contains, value: Hello}]}]\n"
    (tmp_path / "suite.yaml").write_text(tests, encoding="utf-8")
    notices = load_suite(tmp_path).notices
    assert [notice.startswith("Warning: 1 training row has a system message") for notice in notices] == [True] * warned
    if warned:
        line = notices[0].partition("Write ")[2].partition(" into the suite's file")[0]
        (tmp_path / "suite.yaml").write_text(f"{line}\n{tests}", encoding="utf-8")
        assert load_suite(tmp_path).notices == ()


def test_several_system_prompts_that_no_case_has_are_a_warning(tmp_path: Path) -> None:
    """If rows have different system messages and no case has one, the notice says to write each case as messages."""
    rows = [{"system": f"Be {n}.", "prompt": f"Hi {n}", "completion": "Ho"} for n in range(2)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(f"tests:\n{CASE}\n", encoding="utf-8")
    (notice,) = load_suite(tmp_path).notices
    assert "2 training rows have a system message" in notice
    assert "Write each case as messages: [{role: system, content: ...}" in notice


CONFIGURATION = "prompts: ['{{x}}']\ntests: [{vars: {x: a}, assert: [{type: is-json}]}]\n"


@pytest.mark.parametrize(
    ("given", "message", "remedy"),
    [
        ("configs", "this folder holds no suite.yaml", "Give the file of the configuration: {0}/promptfooconfig.yaml"),
        ("configs/rows.csv", "this is a file of rows, not a suite", "harness new suites/NAME --from {0}/rows.csv"),
        ("configs/grids/quick.yaml", "this is a grid, not a suite", "Give the suite's folder: {0}"),
    ],
)
def test_what_is_given_in_place_of_a_suite(tmp_path: Path, given: str, message: str, remedy: str) -> None:
    """For a folder with a configuration, a file of rows or a grid, the error says what to give instead."""
    folder = tmp_path / "configs"
    (folder / "grids").mkdir(parents=True)
    (folder / "promptfooconfig.yaml").write_text(CONFIGURATION)
    (folder / "rows.csv").write_text("question,answer\na,b\n")
    (folder / "grids/quick.yaml").write_text("axes: {rank: [2]}\n")
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(tmp_path / given)
    assert remedy.format(folder) in caught.value.remedy
    assert load_suite(folder / "promptfooconfig.yaml").cases


def test_a_configuration_in_json_is_read(tmp_path: Path) -> None:
    """A configuration may be a JSON file; its escapes mean characters as in JSON."""
    file = tmp_path / "promptfooconfig.json"
    file.write_text(r'{"tests": [{"prompt": "a \ud83d\ude00", "assert": [{"type": "is-json"}]}]}')
    assert load_suite(file).cases[0].prompt == "a \U0001f600"


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("vars: {x: !!str 5}", 'Write "5" in quotes, without the tag.'),
        ("prompt: '{{user-name}}', vars: {user-name: x}", "rename the variable to user_name"),
        ("prompt: '{{user.name}}', vars: {user.name: x}", "rename the variable to user_name"),
        ("prompt: a, assert: [{type: regex, value: '[^]+'}]", r"write [\s\S] for [^]"),
        (r"prompt: a, assert: [{type: regex, value: '(?<a>b)\k<a>'}]", r"write (?P=name) for \k<name>"),
    ],
)
def test_remedies_say_how_to_write_it(case: str, remedy: str) -> None:
    """For a tag, a variable that no template can name, and a pattern of JavaScript, the remedy says what to write."""
    asserted = "" if "assert" in case else ", assert: [{type: is-json}]"
    with pytest.raises(SuiteError) as caught:
        parse_suite(f"tests: [{{{case}{asserted}}}]", "suite.yaml", files())
    assert remedy in caught.value.remedy
