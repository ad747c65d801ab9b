"""Tests of suites written for promptfoo: what is read, ignored with a notice, refused in one error, or skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core.errors import SuiteError, UsageError
from harness.runner.preparation import prepare
from harness.runner.request import Request
from harness.suites import parse_suite
from tests.support.suite_texts import CASE, PROMPTFOO, ROW, case, files, refusal, suite

PROMPTS = "One {{input}}\n---\nTwo {{input}} {{language}}\n"
MORE = (
    "language,input,__expected1,__expected2,__metric,__threshold,__metadata:kind\n"
    "fr,x,rouge-n(0.6): a b,not-starts-with:x,Form,0.5,easy\n"
)


def test_a_promptfoo_config_loads_unchanged() -> None:
    """A configuration as in promptfoo's documentation can be read as a suite, and a notice lists the ignored keys."""
    found = suite(PROMPTFOO, prompts_dot_txt=PROMPTS, more_dot_csv=MORE, shape_dot_json='{"type": "object"}')
    assert [c.prompt for c in found.cases[:4]] == [
        "Translate to French: Hello world", 'Please translate "Hello world" to French.', "One Hello world",
        "Two Hello world French",
    ]  # fmt: skip
    french, data, table = found.cases[0], found.cases[4], found.cases[8]
    assert [a.name for a in french.assertions] == ["not-is-refusal", "icontains", "levenshtein", "assert-set"]
    assert french.assertions[1].metric == "Accuracy French"
    assert (french.assertions[2].threshold, french.assertions[2].value) == (8.0, "Bonjour French")
    assert [(a.type, a.value) for a in french.assertions[3].children] == [
        ("contains-any", ["monde", "Monde, le"]), ("word-count", {"max": 10}),
    ]  # fmt: skip
    assert (french.assertions[3].threshold, french.assertions[3].weight, data.threshold) == (0.5, 2.0, 0.5)
    assert [a.value for a in data.assertions[1:]] == [
        {"type": "object", "required": ["a"]}, {"type": "object"}, {"a": "a"},
    ]  # fmt: skip
    assert [(a.name, a.threshold, a.metric) for a in table.assertions] == [
        ("not-is-refusal", None, ""), ("rouge-n", 0.6, "Form"), ("not-starts-with", None, "Form"),
    ]  # fmt: skip
    (notice,) = found.notices
    assert notice.startswith("Ignored: env (suite.yaml:15:1), evaluateOptions (suite.yaml:16:1), metadata (")
    assert all(name in notice for name in ("outputPath", "provider (", "providers", "tags"))


UNSUPPORTED = """
defaultTest:
  assert: [{type: g-eval, value: is polite, provider: openai:gpt-4o, rubricPrompt: [{role: system}]}]
tests:
- prompt: a
  assert:
  - {type: equals, value: x}
  - {type: webhook, value: http://x}
  - {type: assert-set, assert: [{type: latency, threshold: 200}]}
  - {type: "not-similar:dot", value: y, threshold: 0.8}
  - {type: python, value: len(output) > 3}
- prompt: b
  assert: [{type: contains, value: file://code.js}]
- prompt: c
  options: {transform: output.text}
  assert: [{type: contains, value: x}]
- prompt: d
  assert: [{type: contains, value: x, transform: output.text}, {type: equals, value: z}]
"""


def test_unsupported_features_are_one_error() -> None:
    """If a suite uses unsupported features, one error names all of them with their places, and the option to skip."""
    message = refusal(UNSUPPORTED)
    assert message.startswith("suite.yaml:3:12: these features are not supported:\n")
    assert message.splitlines()[1:-1] == [
        "contains with a value from code: suite.yaml:13:12",
        "g-eval: suite.yaml:3:12",
        "latency: suite.yaml:9:33",
        "not-similar:dot: suite.yaml:10:5",
        "python with inline code (value: module:function names a function in the suite's folder): suite.yaml:11:5",
        "transform: suite.yaml:15:13, suite.yaml:18:12",
        "webhook: suite.yaml:8:5",
    ]
    assert "--skip-unsupported" in message.splitlines()[-1]


def test_unsupported_features_are_skipped_and_counted() -> None:
    """With `skip_unsupported`, unsupported assertions are skipped, and cases left without assertions are left out.

    Notices count both.
    """
    found = parse_suite(UNSUPPORTED, "suite.yaml", files(), skip_unsupported=True)
    assert [(c.prompt, [a.value for a in c.assertions]) for c in found.cases] == [("a", ["x"]), ("d", ["z"])]
    assert found.notices[0].startswith("Skipped, because it is not supported: contains with a value from code (once)")
    assert "g-eval (3 times)" in found.notices[0]
    assert found.notices[1] == "Left out, because no supported assertion remains: 2 of the cases."


def test_a_suite_without_supported_cases_is_refused() -> None:
    """If no case has a supported assertion, the suite is refused even with `skip_unsupported`."""
    text = "tests: [{prompt: a, assert: [{type: g-eval, value: x}]}]"
    with pytest.raises(SuiteError, match="the suite has no case with"):
        parse_suite(text, "suite.yaml", files(), skip_unsupported=True)


def test_extensions_are_neither_ignored_nor_skipped() -> None:
    """Extensions, which may change every case, are refused, even if unsupported features are skipped."""
    text = f"tests:\n{CASE}\nextensions: [file://hook.py:beforeEach]"
    assert "extensions: suite.yaml:3:1" in refusal(text)
    with pytest.raises(SuiteError, match="extensions can change every case, so they cannot be skipped\nRemove them"):
        parse_suite(text, "suite.yaml", files(), skip_unsupported=True)


NEWEST = "$schema: 'https://json-schema.org/draft/2020-12/schema'"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("{type: word-count, value: lots}", "word-count needs a number of words"),
        ("{type: word-count, value: {min: 3, max: 2}}", "word-count has a min above its max"),
        ("{type: word-count, value: {least: 3}}", "word-count takes min and max"),
        ("{type: word-count, value: -1}", "word-count needs a number of words"),
        ("{type: is-refusal, value: x}", "is-refusal takes no value"),
        ("{type: is-json, value: {type: nonsense}}", "is-json has an invalid JSON Schema"),
        ("{type: is-json, value: {pattern: '('}}", "not a regular expression"),
        ("{type: is-json, value: {items: {$ref: 'http://x/y'}}}", 'refers to "http://x/y", which is not fetched'),
        (f"{{type: is-json, value: {{{NEWEST}, patternProperties: {{}}, unevaluatedProperties: {{}}}}}}", "cannot"),
        ("{type: f1}", "f1 needs a value, or a case with a reference"),
        ("{type: f1, value: ''}", "f1 has an empty value"),
        ("{type: f1, value: x, threshold: 2}", "suite.yaml:2:56: threshold: should be at most 1, found 2"),
        ("{type: equals, value: x, threshold: -1}", "threshold: should be greater than or equal to 0"),
        ("{type: assert-set}", "assert-set holds no assertions"),
        ("{type: assert-set, assert: []}", "assert: is empty"),
        ("{type: assert-set, assert: [{type: telepathy}]}", 'suite.yaml:2:59: unknown assertion type "telepathy"'),
        ("{type: equals, value: x, assert: [{type: is-json}]}", "equals cannot hold assertions"),
        ("{type: equals, value: x, weight: 0}", "all assertions of this case have weight 0"),
        ("{type: evaluate}", "evaluate needs a metric's name"),
        ("{type: evaluate, value: ../x.py}", 'there is no file "../x.py"'),
        ("{type: evaluate, value: none.py}", 'there is no file "none.py"'),
        ("{type: evaluate, value: a b}", 'evaluate cannot have the metric "a b"'),
        ("{type: evaluate, value: {metric: a, scale: 0}}", "evaluate has a scale that is not a number above 0"),
        ("{type: evaluate, value: {metric: a, kee: b}}", 'unknown key "kee" in its value'),
        ("{type: python, value: 'none:f'}", 'there is no file "none.py"'),
        ("{type: contains, value: 'file://none.txt'}", 'there is no file "none.txt"'),
        ("{type: contains, value: '{{empty}}'}", "contains has an empty value"),
        ("{type: regex, value: '{{bracket}}'}", "not a regular expression"),
        ("{type: contains, value: x, wieght: 2}", 'unknown key "wieght"'),
    ],
)  # fmt: skip
def test_a_bad_assertion_is_refused_at_its_place(test: str, expected: str) -> None:
    """If an assertion has a mistake, the error gives the line."""
    variables = "vars: {empty: '', bracket: '('}, " if "{{" in test else ""
    message = refusal(f"tests:\n- {{prompt: p, {variables}assert: [{test}]}}")
    assert message.startswith("suite.yaml:2:")
    assert expected in message


def test_a_reference_replaces_a_missing_value() -> None:
    """If an assertion compares the answer with a text, but has no value, the case's reference is used."""
    (found,) = case("prompt: p\nvars: {a: x}\nreference: 'r {{a}}'\nassert: [{type: f1}, {type: not-bleu}]").cases
    assert [(a.name, a.value) for a in found.assertions] == [("f1", "r x"), ("not-bleu", "r x")]


def test_code_beside_the_suite_is_noted() -> None:
    """If a suite runs code, a notice says so, and the cases keep their variables, which the code may read."""
    text = (
        "prompt: p\nvars: {a: x}\n"
        "assert: [{type: python, value: 'file://judges.py'}, {type: python, value: 'judges:f'}, "
        "{type: evaluate, value: file://mine.py}, {type: evaluate, value: accuracy}]"
    )
    lines = "\n  ".join(text.splitlines())
    judges = "def get_assert(output, context): return True\ndef f(output, context): return True"
    found = suite(f"tests:\n- {lines}", judges_dot_py=judges, mine_dot_py="")
    assert [a.value for a in found.cases[0].assertions] == [
        "judges.py:get_assert", "judges.py:f", {"metric": "mine.py"}, {"metric": "accuracy"},
    ]  # fmt: skip
    assert found.cases[0].vars == {"a": "x"}
    (notice,) = found.notices
    assert notice == (
        "Runs code, and is scored only with --allow-code: evaluate mine.py (once), python judges.py:f (once), "
        "python judges.py:get_assert (once)."
    )


def test_thresholds_without_effect_are_noted() -> None:
    """If an assertion type has no threshold, a given one is ignored, and a notice says so."""
    found = case("prompt: a\nassert: [{type: contains, value: x, threshold: 0.5}]")
    assert found.cases[0].assertions[0].threshold is None
    assert found.notices == ("Ignored: threshold of contains (suite.yaml:3:39).",)


def test_prefix_and_suffix_surround_the_prompt() -> None:
    """The options `prefix` and `suffix` are put around the prompt; a case's own options replace the defaults."""
    found = suite("""
defaultTest: {options: {prefix: "A ", suffix: " {{v}}"}}
tests: [{prompt: p, vars: {v: z}, options: {prefix: "B "}, assert: [{type: is-json}]}]
""")
    assert found.cases[0].prompt == "B p z"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Paris", ("equals", "Paris", None)), ("is-json", ("is-json", None, None)),
        ("not-contains-json", ("not-contains-json", None, None)), ("levenshtein(2): ab", ("levenshtein", "ab", 2.0)),
        ("bleu(0.3):a:b", ("bleu", "a:b", 0.3)), ("f1(0.5)", ("f1", "R", 0.5)),
        ("exact-match:", ("exact-match", "R", None)),
        ("word-count: 5", ("word-count", 5, None)), ("python", ("equals", "python", None)),
        ("12:30", ("equals", "12:30", None)),
        ("contains-any: a, b", ("contains-any", ["a", "b"], None)), ("a(b)", ("equals", "a(b)", None)),
        ("is-json: {type: array}", ("is-json", {"type": "array"}, None)),
        ("similar: a", ("similar", "a", 0.8)), ("answer-relevance", ("answer-relevance", None, 0.75)),
        ("file://a.txt", ("equals", "x", None)),
    ],
)  # fmt: skip
def test_shorthand_of_a_table(cell: str, expected: tuple[str, Any, float | None]) -> None:
    """In the column `__expected`, a cell is `type:value` or `type(threshold):value`; any other text means `equals`."""
    csv = f'prompt,reference,__expected\np,R,"{cell}"\n'
    (found,) = suite("tests: file://c.csv", c_dot_csv=csv, a_dot_txt="x\n").cases
    (only,) = found.assertions
    assert (only.name, only.value, only.threshold) == expected


@pytest.mark.parametrize("cell", ["g-eval: is nice", "similar:dot(0.8): x", "fn:process.exit(1)", "webhook:http://x",
                                  "is-sql", "not-is-xml", "file://a.js", "file://a.mjs:f"])  # fmt: skip
def test_unsupported_cells_of_a_table_are_refused(cell: str) -> None:
    """If a cell of `__expected` has an unsupported assertion type, it is refused, not compared as text."""
    assert "c.csv:2" in refusal("tests: file://c.csv", c_dot_csv=f'prompt,__expected\np,"{cell}"\n')


def test_columns_of_the_harness_are_variables_too() -> None:
    """Columns such as `id` and `reference`, which are fields of a case, can be named in its prompt, as in promptfoo."""
    csv = "id,reference,group,__expected\na,R,g,equals: {{reference}}\n"
    (found,) = suite("prompts: ['{{id}} {{group}}']\ntests: c.csv", c_dot_csv=csv).cases
    assert (found.prompt, found.id, found.reference, found.group) == ("a g", "a", "R", "g")
    assert found.assertions[0].value == "R"


@pytest.mark.parametrize("depth", [40, 300, 20_000])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ('{"type": "assert-set", "assert": [', "]}"),
        ('{"type": "is-json", "value": {"items": ' + '{"items": ', "}" + "}}"),
        ('{"type": "equals", "value": [', "]}"),
    ],
)
def test_nesting_in_a_row_is_bounded(opening: str, closing: str, depth: int) -> None:
    """If values in a line of JSONL are nested too deep, the error gives the line."""
    test = opening + "[" * depth + "]" * depth + closing
    message = refusal("tests: file://c.jsonl", c_dot_jsonl=f'{{"prompt": "p", "assert": [{test}]}}')
    assert message.startswith("c.jsonl:1: is nested too deep")


def test_default_ids_never_change() -> None:
    """If a case has no id, the id that it gets is the same in every version of the harness."""
    (found,) = suite("tests: [{prompt: p, assert: [{type: equals, value: x}]}]").cases
    assert found.id == "5e2260eed7"


# --- commands and runs -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a suite with an ignored key, an unsupported assertion, and an assertion that runs code."""
    text = """
providers: [openai:gpt-4o]
prompts: ['{{q}}']
tests:
- vars: {q: a}
  assert: [{type: contains, value: x}, {type: g-eval, value: y}, {type: assert-set, assert: [{type: python, value: "judges:f"}]}]
"""  # noqa: E501
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "judges.py").write_text("def f(output, context): return True", encoding="utf-8")
    (tmp_path / "train.jsonl").write_text(ROW, encoding="utf-8")
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "quick.yaml").write_text("axes: {rank: [4]}", encoding="utf-8")
    return tmp_path


def test_validate_reports_what_was_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness validate` refuses unsupported features; with --skip-unsupported it says what was skipped or ignored."""
    assert main(["validate", str(folder)]) == 2
    assert "g-eval: suite.yaml:6:40" in capsys.readouterr().err
    assert main(["validate", str(folder), "--skip-unsupported"]) == 0
    output = capsys.readouterr().out
    assert "Skipped, because it is not supported: g-eval (once)." in output
    assert "Ignored: providers (suite.yaml:2:1)." in output
    assert "Runs code, and is scored only with --allow-code: python judges.py:f (once)." in output


def test_a_run_needs_permission_to_run_code(folder: Path) -> None:
    """If a suite runs code and code is not allowed, `harness run` refuses it before training."""
    request = Request(suite=folder, skip_unsupported=True)
    with pytest.raises(UsageError, match=r"runs code: judges\.py:f"):
        prepare(request)
    manifest = prepare(replace(request, allow_code=True))
    assert len(manifest.suite.notices) == 3


def test_ignored_keys_do_not_change_a_run(folder: Path) -> None:
    """If only ignored keys of a suite change, the digest of the run stays the same."""
    request = Request(suite=folder, skip_unsupported=True, allow_code=True)
    before = prepare(request).digest
    text = (folder / "suite.yaml").read_text(encoding="utf-8")
    (folder / "suite.yaml").write_text(text.replace("providers: [openai:gpt-4o]", "tags: {a: b}"), encoding="utf-8")
    assert prepare(request).digest == before
