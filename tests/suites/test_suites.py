"""Suites: what is read, what is refused, and the places that errors name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.core.suite import Reducer, Role, Split
from harness.core.yaml import MAX_CHARACTERS, MAX_DEPTH, parse_yaml
from harness.core.yaml.document import resolve
from harness.scoring import ASSERTION_TYPES, Need
from harness.scoring.registry import WRITABLE
from harness.suites import load_examples, load_suite, parse_examples, parse_suite
from harness.suites.cases import MAX_FILLED, fill
from tests.support.suite_texts import CASE, ROW, case, refusal, suite

# --- what is read ------------------------------------------------------------------------------------------------


def test_a_case_is_read_whole() -> None:
    """Every field of a case is in its record."""
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
    assert found.line == 2


def test_critical_by_default() -> None:
    """A suite's default may make every case critical, and a case may say that it is not."""
    rows = "[{id: a, prompt: p}, {id: b, prompt: q, critical: false}]"
    found = suite(f"defaultTest: {{critical: true, assert: [{{type: contains, value: x}}]}}\ntests: {rows}\n")
    assert [case.critical for case in found.cases] == [True, False]


def test_the_suites_own_fields_are_read() -> None:
    """Objective, margin, decoding, system prompt and description are in the record."""
    found = suite(
        "description: d\nobjective: retain\nmargin: 5\nsystem_prompt: Be kind.\n"
        f"decoding: {{max_new_tokens: 9, stop: ['###']}}\ntests:\n{CASE}"
    )
    assert (found.description, found.objective, found.margin, found.system_prompt) == ("d", Role.RETAIN, 5, "Be kind.")
    assert (found.decoding.max_new_tokens, found.decoding.stop) == (9, ("###",))


def test_repeats_are_read() -> None:
    """Temperature, repeats and reducer are in the record; by default, each case is asked once and decoded greedily."""
    drawn = suite(f"decoding: {{temperature: 0.7}}\nrepeats: 5\nreducer: any\ntests:\n{CASE}")
    plain = suite(f"tests:\n{CASE}")
    assert (drawn.decoding.temperature, drawn.repeats, drawn.reducer) == (0.7, 5, Reducer.ANY)
    assert (plain.decoding.temperature, plain.repeats, plain.reducer) == (0.0, 1, Reducer.MEAN)


def test_choices_are_read() -> None:
    """Choices are read as spelt, with variables replaced; without a value, the reference is the right choice."""
    found = suite("""
defaultTest: {choices: [yes, no]}
tests:
  - {prompt: p, assert: [{type: choice, value: no}]}
  - {prompt: q, vars: {a: 7}, choices: ["{{a}}", "8", 9], reference: "8", assert: [{type: not-choice}]}
""").cases
    assert [(c.choices, c.assertions[0].name, c.assertions[0].value) for c in found] == [
        (("yes", "no"), "choice", "no"),
        (("7", "8", "9"), "not-choice", "8"),
    ]


def test_defaults_join_every_case() -> None:
    """Variables and assertions of defaultTest are joined to the case's; a case's other fields replace its fields."""
    found = suite("""
defaultTest: {role: retain, vars: {a: 1, b: 2}, assert: [{type: contains, value: "{{a}}"}]}
tests:
  - {prompt: "{{a}} {{b}}", vars: {b: 3}}
  - {prompt: p, role: avoid, assert: [{type: contains, value: x}]}
""").cases
    assert [c.role for c in found] == [Role.RETAIN, Role.AVOID]
    assert found[0].prompt == "1 3"
    assert [a.value for a in found[1].assertions] == ["1", "x"]


def test_a_case_that_is_not_written_yet() -> None:
    """A case whose prompt is TODO is not asked, and a notice names the case and its place."""
    found = suite(f"tests:\n{CASE}\n- {{id: later, prompt: TODO, assert: [{{type: contains, value: x}}]}}")
    assert [c.prompt for c in found.cases] == ["Hi"]
    assert found.notices == (
        "Not asked, because the prompt is still TODO: later (suite.yaml:3:23). Replace TODO with the user's message.",
    )


def test_a_suite_without_written_cases() -> None:
    """A suite in which the prompt of every case is TODO is refused."""
    with pytest.raises(SuiteError, match="the suite has no case with a prompt and a supported assertion"):
        suite("tests: [{prompt: TODO, assert: [{type: contains, value: x}]}]")


def test_prompts_multiply_cases() -> None:
    """A case without a prompt is asked with each of the suite's prompts, and its ids are numbered."""
    found = suite("""
prompts: ["Q: {{q}}", "{{q}}?"]
tests: [{id: a, vars: {q: Why}, assert: [{type: contains, value: x}]}]
""").cases
    assert [(c.id, c.prompt) for c in found] == [("a-1", "Q: Why"), ("a-2", "Why?")]


def test_cases_come_from_a_csv() -> None:
    """Columns of a CSV are variables; `__expected` is an assertion, and plain text in it means `equals`."""
    csv = (
        "id,role,city,__expected,__expected2,__description\n"
        'a,retain,France,icontains: Paris,"contains-any: x,y",capital\n\n'
        'b,,"Ita\nly",Rome: eternal,,\n'
    )
    found = suite("prompts: ['Capital of {{city}}?']\ntests: file://c.csv", c_dot_csv=csv).cases
    assert [(c.id, c.role, c.line) for c in found] == [("a", Role.RETAIN, 2), ("b", Role.LEARN, 4)]
    assert [(a.type, a.value) for a in found[0].assertions] == [("icontains", "Paris"), ("contains-any", ["x", "y"])]
    assert [(a.type, a.value) for a in found[1].assertions] == [("equals", "Rome: eternal")]
    assert found[1].prompt == "Capital of Ita\nly?"


def test_a_csv_may_contain_prompts() -> None:
    """If the suite has no prompts, the column `prompt` of a CSV is the prompt of each case."""
    (found,) = suite("tests: file://c.csv", c_dot_csv="prompt,__expected\nHi,is-json\n").cases
    assert (found.prompt, found.assertions[0].type) == ("Hi", "is-json")


def test_cases_come_from_several_files() -> None:
    """A list of tests may mix cases with JSONL and YAML files."""
    line = '{"id": "j", "prompt": "p", "assert": [{"type": "equals", "value": "v"}]}\n'
    more = CASE.replace("Hi", "Hu")
    found = suite(f"tests:\n{CASE}\n- file://a.jsonl\n- file://b.yaml", a_dot_jsonl=line, b_dot_yaml=f"# more\n{more}")
    assert [(c.prompt, c.line) for c in found.cases] == [("Hi", 2), ("p", 1), ("Hu", 2)]


def test_training_rows_are_messages_or_pairs() -> None:
    """A training row is a conversation or a prompt with its completion."""
    rows = parse_examples(f'{ROW}\n\n{{"prompt": "a", "completion": "b"}}\n', "train.jsonl")
    assert [[m.content for m in row.messages] for row in rows] == [["Hi", "Ho"], ["a", "b"]]
    assert [row.line for row in rows] == [1, 3]


def test_a_line_separator_does_not_end_a_row() -> None:
    """U+2028 within a training row is text, as in all JSONL readers."""
    (row,) = parse_examples('{"prompt": "a\u2028b", "completion": "c"}', "train.jsonl")
    assert row.messages[0].content == "a\u2028b"


# --- scalars -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("12:30:00", "12:30:00"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("0b1", "0b1"), ("1e-4", 1e-4), ("1e3", 1000.0), ("-.5", -0.5), ("+1", 1), ("1.", 1.0),
        ("0o17", 15), ("0x1F", 31), ("017", 17), ("true", True), ("False", False), ("tRUE", "tRUE"), ("~", None),
        ("Null", None), (".inf", math.inf), ("-.INF", -math.inf), (".5e1", 5.0), ("e3", "e3"), (".", "."), ("-", "-"),
    ],
)  # fmt: skip
def test_scalars_are_of_yaml_1_2(text: str, meaning: Any) -> None:
    """Unquoted scalars have the values of the core schema of YAML 1.2."""
    found = resolve(text)
    assert found == meaning
    assert isinstance(found, bool) == isinstance(meaning, bool)


@pytest.mark.parametrize("text", ["no", "on", "12:30:00", "1e-4", "007", "true", "3.10"])
def test_text_is_as_spelt(text: str) -> None:
    """An unquoted scalar keeps its spelling where text is expected."""
    (found,) = case(f"prompt: {text}\nassert: [{{type: contains, value: {text}}}]").cases
    assert (found.prompt, found.assertions[0].value) == (text, text)


@settings(deadline=None)
@given(st.integers() | st.floats(allow_nan=False))
def test_numbers_survive(number: float) -> None:
    """A number in Python's notation is read as the same number."""
    assert resolve(repr(number).replace("inf", ".inf")) == number


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_json_is_yaml(value: Any) -> None:
    """JSON text gives the same values as with a JSON parser, with libyaml and with the Python parser."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse_yaml(text, "f", SuiteError).value == value
    assert parse_yaml(text, "f", SuiteError, loader=yaml.SafeLoader).value == value


# --- nothing but SuiteError --------------------------------------------------------------------------------------

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
    """Any text gives a suite or a `SuiteError`."""
    _suite_or_error(lambda: suite(text))


@settings(deadline=None)
@given(st.dictionaries(keys, shapes, max_size=6))
def test_no_shape_breaks_the_reader(value: Any) -> None:
    """Any values under the known keys give a suite or a `SuiteError`."""
    _suite_or_error(lambda: suite(json.dumps(value), x_dot_csv="a,__expected\n1,2"))


@settings(deadline=None)
@given(st.text() | st.text(alphabet='abc_,:"\n\r\x00'), st.sampled_from(["csv", "jsonl", "yaml", "txt"]))
def test_no_rows_break_the_reader(text: str, suffix: str) -> None:
    """Any file of cases or training rows gives a suite or a `SuiteError`."""
    _suite_or_error(lambda: parse_suite(f"tests: file://c.{suffix}", "suite.yaml", lambda _: text))
    _suite_or_error(lambda: parse_examples(text, "train.jsonl"))


@settings(deadline=None)
@given(st.text(alphabet="ab()[]{}*+?|\\^$.,019<>:=!-Pp&~"))
def test_no_pattern_breaks_the_reader(pattern: str) -> None:
    """Any pattern gives a suite or a `SuiteError`."""
    test = {"prompt": "p", "assert": [{"type": "regex", "value": pattern}]}
    _suite_or_error(lambda: suite(json.dumps({"tests": [test]})))


def _suite_or_error(read: Callable[[], object]) -> None:
    with suppress(SuiteError):
        read()


# --- errors, each with place and remedy --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "suite.yaml:1:1: expected a mapping"),
        ("tests: [", "suite.yaml:"),
        ("tests: []\ntests: []", 'suite.yaml:2:1: the key "tests" is given twice, first in line 1'),
        ("a: &x 1", "suite.yaml:1:4: anchors"),
        ("a: *x", "suite.yaml:1:4: anchors"),
        ("a: !!python/object/apply:os.system [ls]", "suite.yaml:1:4: tags are not accepted"),
        ("[a]: 1", "suite.yaml:1:1: a key must be a plain name"),
        ("a: 1\n---\nb: 1", "suite.yaml:2:1: a second document begins here"),
        ("a: \x07", "suite.yaml:1:4: holds the unprintable character U+0007"),
        ("tests: []\n" + "a: " + "9" * 5000, "suite.yaml:2:4: a number with too many digits"),
        (f"test:\n{CASE}", 'unknown key "test"  Did you mean "tests"?'),
        (f"tests:\n{CASE}\nmargin: lots", 'suite.yaml:3:9: margin: expected a number, found "lots"'),
        (f"tests:\n{CASE}\nmargin: .nan", "suite.yaml:3:9: margin"),
        (f"tests:\n{CASE}\nobjective: lern", 'suite.yaml:3:12: unknown objective "lern"\nDid you mean "learn"?'),
        (f"tests:\n{CASE}\ndecoding: {{max_tokens: 1}}", "suite.yaml:3:12: unknown key"),
        ("tests: [7]", "suite.yaml:1:9: expected a mapping of names to values, found 7"),
        ("tests: file://none.csv", 'suite.yaml:1:8: there is no file "none.csv"'),
        ("tests: cases.csv", "suite.yaml:1:8: expected a case, or file://NAME"),
        (f"repeats: 3\ntests:\n{CASE}", "suite.yaml:1:10: 3 repeats at temperature 0 give the same answer\nWrite"),
        (f"repeats: 0\ntests:\n{CASE}", "suite.yaml:1:10: repeats: should be greater than or equal to 1, found 0"),
        (f"reducer: median\ntests:\n{CASE}", 'suite.yaml:1:10: unknown reducer "median"'),
        (f"decoding: {{temperature: -1}}\ntests:\n{CASE}", "suite.yaml:1:25: temperature: should be greater"),
        (f"decoding: {{temperature: .nan}}\ntests:\n{CASE}", "suite.yaml:1:25: temperature"),
        (f"tests:\n{CASE}\ntrain: file://none.jsonl", 'suite.yaml:3:8: there is no file "none.jsonl"'),
        (f"tests:\n{CASE}\ntrain: train.jsonl", "suite.yaml:3:8: expected file://NAME"),
    ],
)  # fmt: skip
def test_a_bad_suite_is_refused_at_its_place(text: str, expected: str) -> None:
    """A mistake in a suite is reported with line and column."""
    assert expected in refusal(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt: p", "suite.yaml:2:3: this case has no assertions"),
        ("assert: [{type: is-json}]", "suite.yaml:2:3: this case has no prompt"),
        (
            "prompt: p\npromt: p\nassert: [{type: is-json}]",
            'suite.yaml:3:3: unknown key "promt"\nDid you mean "prompt"?',
        ),
        ("prompt: p\nrole: lern", 'suite.yaml:3:9: unknown role "lern"\nDid you mean "learn"?'),
        ("prompt: p\nassert: [{type: icontain}]", 'suite.yaml:3:19: unknown assertion type "icontain"'),
        ("prompt: p\nassert: [{value: x}]", 'suite.yaml:3:12: "type" is missing'),
        ("prompt: p\nassert: [{type: contains}]", "suite.yaml:3:12: contains needs a text"),
        ("prompt: p\nassert: [{type: contains, value: ''}]", "suite.yaml:3:36: contains has an empty value"),
        ("prompt: p\nassert: [{type: contains-any, value: {}}]", "suite.yaml:3:40: contains-any needs a list"),
        ("prompt: p\nassert: [{type: not-contains-all, value: []}]", "not-contains-all needs a list"),
        ("prompt: p\nassert: [{type: is-json, value: x}]", "suite.yaml:3:35: is-json takes a JSON Schema"),
        ("prompt: p\nassert: [{type: regex, value: '(a'}]", "suite.yaml:3:33: not a regular expression"),
        (
            "prompt: p\nassert: [{type: is-json, weight: -1}]",
            "suite.yaml:3:36: weight: should be greater than or equal to 0, found -1",
        ),
        ("prompt: p\nmessages: [{role: user, content: x}]", "a case has either a prompt or messages"),
        ("prompt: ' '", "suite.yaml:2:11: the prompt is empty"),
        (
            "messages: [{role: human, content: x}]",
            'suite.yaml:2:21: unknown role "human"\nKnown: assistant, system, user.',
        ),
        ("messages: [{role: user, content: ' '}]", "suite.yaml:2:36: this message is empty"),
        ("messages: [{role: assistant, content: x}]", "suite.yaml:2:13: message 1 is from assistant, not from user"),
        ("messages: [{role: system, content: x}]", "the last message is not from user"),
        (
            "prompt: '{{a}}'\nassert: [{type: is-json}]",
            'suite.yaml:2:11: there is no variable "a"\nDefine it under vars.',
        ),
        ("prompt: a\nassert: [{type: contains, value: '{{b}}'}]", 'suite.yaml:3:36: there is no variable "b"'),
        ("prompt: a\nassert: [{type: contains-any, value: [x, '{{b}}']}]", "suite.yaml:3:44: there is no variable"),
        ("prompt: a\nassert: [{type: perplexity}]", "suite.yaml:3:12: perplexity needs a threshold of at least 1"),
        (
            "prompt: a\nassert: [{type: not-perplexity, threshold: 0.5}]",
            "not-perplexity needs a threshold of at least 1",
        ),
        ("prompt: a\nassert: [{type: perplexity, threshold: 2, value: x}]", "perplexity takes no value"),
        ("prompt: a\nassert: [{type: perplexity, threshold: .nan}]", "suite.yaml:3:42: threshold"),
        (
            "prompt: a\nassert: [{type: reference-perplexity, threshold: 2}]",
            "suite.yaml:3:12: reference-perplexity needs a case with a reference\nAdd reference: to the case.",
        ),
        (
            "prompt: a\nassert: [{type: choice, value: x}]",
            "suite.yaml:3:34: choice needs a case with choices\nAdd choices:",
        ),
        (
            "prompt: a\nchoices: [Paris, Rome]\nassert: [{type: choice, value: paris}]",
            'suite.yaml:4:34: "paris" is not among the case\'s choices\nDid you mean "Paris"?',
        ),
        (
            "prompt: a\nchoices: [Paris, Rome]\nassert: [{type: choice}]",
            "choice needs a value, or a case with a reference",
        ),
        ("prompt: a\nchoices: [Paris]\nassert: [{type: choice, value: Paris}]", "suite.yaml:3:12: choices"),
        (
            "prompt: a\nchoices: [a, ' a']\nassert: [{type: choice, value: a}]",
            'suite.yaml:3:16: the choice " a" is given twice',
        ),
        ("prompt: a\nchoices: [a, '']\nassert: [{type: choice, value: a}]", "suite.yaml:3:16: this choice is empty"),
        ("prompt: a\nvars: {a: [1, 2]}", "suite.yaml:3:13: a: expected text, found a list"),
    ],
)
def test_a_bad_case_is_refused_at_its_place(text: str, expected: str) -> None:
    """A mistake in a case is reported with line and column, and with the most similar valid name."""
    with pytest.raises(SuiteError) as caught:
        case(text)
    assert expected in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    """One error reports several mistakes, in the order of the file, each with its own place."""
    message = refusal("tests:\n- {prompt: a, rol: learn}\n- {promt: b}\n- {prompt: c, split: x}")
    assert [line.split(": ")[0] for line in message.splitlines()] == [
        "suite.yaml:2:15",
        "suite.yaml:3:4",
        "suite.yaml:4:22",
    ]


def test_equal_ids_are_refused() -> None:
    """Two cases with the same id are refused, and the error names both places."""
    one = "{id: a, prompt: p, assert: [{type: is-json}]}"
    assert "suite.yaml:2:3 and suite.yaml:3:3" in refusal(f"tests:\n- {one}\n- {one.replace('p,', 'q,')}")


def test_equal_cases_are_refused() -> None:
    """Two cases without ids but with equal prompts and assertions are refused, even in different files."""
    message = refusal(f"tests:\n{CASE}\n- file://b.yaml", b_dot_yaml=f"# more\n{CASE}")
    assert "suite.yaml:2:3 and b.yaml:2:3" in message


def test_ids_do_not_depend_on_order() -> None:
    """The default id of a case does not depend on its position."""
    other = "- {prompt: Hu, assert: [{type: is-json}]}"
    first, second = suite(f"tests:\n{CASE}\n{other}").cases, suite(f"tests:\n{other}\n{CASE}").cases
    assert {c.id for c in first} == {c.id for c in second}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{}", "is not a training row"),
        ("[1]", "is not a training row"),
        ('{"messages": []}', "messages: is empty"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "the last message is not from assistant"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', 'unknown role "bot"'),
        ('{"messages": [{"role": "user", "content": ""}]}', "this message is empty"),
        ('{"prompt": "x"}', '"completion" is missing'),
        ('{"prompt": "x", "completion": 4}', "completion: expected text, found 4"),
        ("{'prompt': 'x'}", "not valid JSON"),
        ('{"prompt": "x", "prompt": "y"}', 'the key "prompt" is given twice'),
        ('{"prompt": "\\ud800", "completion": "x"}', "not valid JSON"),
        ('{"prompt": NaN}', "NaN is not a JSON number"),
        ("[" * 20_000, "is nested too deep"),
        ('{"prompt": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_a_bad_training_row_is_refused_at_its_line(row: str, expected: str) -> None:
    """A mistake in a training row is reported with file and line."""
    with pytest.raises(SuiteError) as caught:
        parse_examples(f"{ROW}\n{row}\n", "train.jsonl")
    assert str(caught.value).startswith("train.jsonl:2")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        ("", "c.csv:1: has no header"),
        ("a,a\n1,2", 'c.csv:1: the column "a" is given twice'),
        ("a,__expcted\n1,2", 'c.csv:1: unknown column "__expcted"\nDid you mean "__expected"?'),
        ("a,__expected\n1,2,3", "c.csv:2: has 3 cells under 2 columns"),
        ('a,__expected\n1,"2', "c.csv:2: not valid CSV"),
        ("a,__expected\n1,icontain:x", 'c.csv:2: unknown assertion type "icontain"\nDid you mean "icontains"?'),
        ("a,__expected\n1,javascript:true", "javascript: c.csv:2"),
        ("a,__expected,__threshold\n1,x,much", 'c.csv:2: __threshold: expected a number, found "much"'),
        ("a,__expected\n1,", "c.csv:2: this case has no assertions"),
        ("b,__expected\n1,x", 'c.csv:2: prompts[0]: there is no variable "a"'),
        ("a,role,__expected\n1,lern,x", 'c.csv:2: unknown role "lern"'),
        ("a,__expected\n1,regex:(", "c.csv:2: not a regular expression"),
        ("a,__expected", "there are no cases"),
    ],
)
def test_a_bad_csv_is_refused_at_its_line(csv: str, expected: str) -> None:
    """A mistake in a CSV of cases is reported with file and line."""
    assert expected in refusal("prompts: ['{{a}}']\ntests: file://c.csv", c_dot_csv=csv)


# --- hostile text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "? " * 20_000])
def test_nesting_is_bounded(text: str, loader: Any) -> None:
    """20,000 nested brackets are refused with line and column, by both parsers."""
    with pytest.raises(SuiteError) as caught:
        parse_yaml(text, "f.yaml", SuiteError, loader=loader)
    assert caught.value.place is not None
    assert caught.value.place.column is not None


def test_reasonable_nesting_is_read() -> None:
    """Nesting up to the limit is read."""
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f", SuiteError).value


def test_an_alias_bomb_is_refused() -> None:
    """A text whose aliases multiply its size is refused at the place of its first anchor."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert refusal(bomb).startswith("suite.yaml:1:4: anchors")


def test_size_is_bounded() -> None:
    """A suite of more than 4 MiB is refused."""
    assert "larger than 4 MiB" in refusal("#" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "text", ["{{7*7}}", "{{a.__class__}}", "{{ a | upper }}", "{% for %}", "{{}}", "{{a", "{{{{}}}}"]
)
def test_nothing_is_evaluated(text: str) -> None:
    """Any template other than the plain name of a variable stays unchanged."""
    (found,) = case(f"prompt: '{text}'\nvars: {{a: x}}\nassert: [{{type: contains, value: '{text}'}}]").cases
    assert (found.prompt, found.assertions[0].value) == (text, text)


@settings(deadline=None)
@given(st.text(), st.text())
def test_replaced_text_is_not_searched_again(before: str, value: str) -> None:
    """The text of a variable stays unchanged, even if it looks like a variable."""
    text = before.replace("{", "").replace("}", "")
    assert fill(text + "{{ a }}{{b}}", {"a": value, "b": "{{a}}"}) == f"{text}{value}{{{{a}}}}"


def test_replacing_variables_is_bounded() -> None:
    """A text that would become too long is refused before it is built."""
    with pytest.raises(ValueError, match="is longer than"):
        fill("{{a}}" * 100_000, {"a": "x" * MAX_FILLED})


# --- files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "suites" / "greeting"
    found.mkdir(parents=True)
    (found / "suite.yaml").write_text(f"tests:\n{CASE}\n", encoding="utf-8")
    (found / "train.jsonl").write_text(ROW + "\n", encoding="utf-8")
    (tmp_path / "secret.csv").write_text("prompt,__expected\nx,y\n", encoding="utf-8")
    return found


def test_a_suite_is_named_by_its_folder_or_its_file(folder: Path) -> None:
    """A folder and its suite.yaml are the same suite, with the name and the training rows of the folder."""
    assert load_suite(folder) == load_suite(str(folder / "suite.yaml"))
    assert load_suite(folder).name == "greeting"
    assert load_suite(folder).examples == load_examples(folder / "train.jsonl")


@pytest.mark.parametrize("name", ["greting", "greeting/suit.yaml", "none/suite.yaml"])
def test_the_error_for_a_missing_suite_lists_the_others(folder: Path, name: str) -> None:
    """The remedy for a missing suite names the existing ones."""
    with pytest.raises(SuiteError, match="there is no such suite") as caught:
        load_suite(folder.parent / name)
    assert str(folder) in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["../../secret.csv", "/etc/passwd.csv", "link.csv", "linked/secret.csv", "a/../../x.csv"]
)
def test_no_file_outside_the_folder_is_read(folder: Path, name: str) -> None:
    """A suite cannot name files outside its folder: not by `..`, an absolute path or a link."""
    (folder / "link.csv").symlink_to(folder.parent.parent / "secret.csv")
    (folder / "linked").symlink_to(folder.parent.parent)
    (folder / "suite.yaml").write_text(f"tests: file://{name}\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"suite\.yaml:1:8: .* leads out of the suite's folder"):
        load_suite(folder)


def test_a_folder_is_not_a_file(folder: Path) -> None:
    """A folder instead of a file of cases is refused."""
    (folder / "sub.csv").mkdir()
    (folder / "suite.yaml").write_text("tests: file://sub.csv\n", encoding="utf-8")
    with pytest.raises(SuiteError, match="there is no file"):
        load_suite(folder)


def test_other_encodings_are_refused(folder: Path) -> None:
    """Text that is not UTF-8 is refused at its line."""
    (folder / "train.jsonl").write_bytes(ROW.encode() + b"\n\xff\xfe\n")
    with pytest.raises(SuiteError, match=r"train\.jsonl:2: is not UTF-8"):
        load_suite(folder)


def test_a_byte_order_mark_is_ignored(folder: Path) -> None:
    """A byte order mark, as Windows editors write it, is not part of the text."""
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + ROW.encode())
    assert len(load_suite(folder).examples) == 1


VALUES: dict[str, Any] = {"word-count": 3, "evaluate": "accuracy", "is-json": None, "contains-json": None,
                          "is-refusal": None, "python": "mine:judge", "assert-set": None, "perplexity": None,
                          "reference-perplexity": None}  # fmt: skip


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_type_can_be_written(kind: str) -> None:
    """Every assertion type and its twin can be written."""
    row = ASSERTION_TYPES[kind.removeprefix("not-")]
    test: dict[str, Any] = {"type": kind, "value": VALUES.get(row.name, "a")}
    if Need.ASSERTIONS in row.needs:
        test["assert"] = [{"type": "contains", "value": "a"}]
    if row.threshold and row.threshold.least is not None:
        test["threshold"] = row.threshold.least
    case = {"prompt": "p", "reference": "a", "choices": ["a", "b"], "assert": [test]}
    (found,) = suite(json.dumps({"tests": [case]}), mine_dot_py="").cases
    assert found.assertions[0].name == kind
