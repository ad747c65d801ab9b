"""Tests of templates: which are evaluated as Nunjucks would, which are refused, and what limits hold."""

from __future__ import annotations

import time
from typing import Any

import pytest

from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.templates import MAX_FILLED, MAX_LIMITS_REACHED, MissingVariableError, Templates
from tests.support.suite_texts import refusal

VARIABLES: dict[str, Any] = {
    "t": "Teal Lamp", "n": 1.50, "i": 3, "zero": 0, "yes": True, "no": False, "none_": None, "empty": [], "blank": "",
    "list": ["a", "b"], "mixed": [1.0, None, True, ["x", 2]], "map": {"k": "v", "2": "two", "1": "one", "in": {"d": 1}},
    "rows": [{"role": "user", "text": "Hi"}, {"role": "bot", "text": 'a "b"'}], "emoji": "a\U0001f600",
}  # fmt: skip
RENDERED = [
    ("{{ t | upper }} {{ t | lower }} {{ t|capitalize }} {{ 'a bC'|title }}", "TEAL LAMP teal lamp Teal lamp A Bc"),
    ("[{{ ' x ' | trim }}]", "[x]"),
    ("{{ n }} {{ 1.0 }} {{ yes }} {{ no }} [{{ none_ }}] {{ mixed }} {{ map }}",
     "1.5 1 true false [] 1,,true,x,2 [object Object]"),
    ("{{ list | join(', ') }} {{ list | length }} {{ emoji | length }} {{ emoji.length }}", "a, b 2 3 3"),
    ("{{ list[1] }} {{ list.length }} {{ map.k }} {{ map['in'].d }} [{{ map.other.deep }}] [{{ list[7] }}]",
     "b 2 v 1 [] []"),
    ("{% if empty %}list{% endif %}{% if blank %}text{% else %}none{% endif %}{% if zero %}0{% endif %}", "listnone"),
    ("{% for r in rows %}{{ loop.index }}:{{ r.text }}{% if not loop.last %}, {% endif %}{% endfor %}",
     '1:Hi, 2:a "b"'),
    ("{% for k, v in map %}{{ k }}={{ v }};{% endfor %}", "1=one;2=two;k=v;in=[object Object];"),
    ("{% for r in missing %}x{% else %}none{% endfor %}", "none"),
    ("{{ rows | dump }}", '[{"role":"user","text":"Hi"},{"role":"bot","text":"a \\"b\\""}]'),
    ("{{ map | dump(2) }}", '{\n  "1": "one",\n  "2": "two",\n  "k": "v",\n  "in": {\n    "d": 1\n  }\n}'),
    ("{{ missing | default('d') }} [{{ blank | default('d') }}] {{ blank | default('d', true) }}", "d [] d"),
    ("{{ 'x' if zero else 'y' }} {{ blank or 'other' }} {{ t and 'both' }} {{ not blank }}", "y other both true"),
    ("{{ i == '3' }} {{ i > 2 }} {{ 'b' in list }} {{ 'z' not in list }} {{ missing is defined }}",
     "true true true true false"),
    ("{{ 'a' ~ i ~ n }} {{ i + 1 }} {{ 'a' + i }} {{ i * 2 - 1 }}", "a31.5 4 a3 5"),
    ("{# comment #}a{% raw %}{{ b }}{% endraw %}", "a{{ b }}"),
    ("{% set x = t | upper %}{{ x }}\n  {%- if yes %} y {%- endif %}", "TEAL LAMP y"),
    ('{{ (\'{"a": [1]}\' | load).a[0] }} {{ t | replace("Teal", "Red") | safe }} {{ list|first }} {{ list|last }}',
     "1 Red Lamp a b"),
]  # fmt: skip
"""Templates with what Nunjucks 3.2 gives for them and VARIABLES; `tests.studies.promptfoo_templates` asks it."""


@pytest.mark.parametrize(("template", "expected"), RENDERED)
def test_templates_are_evaluated_as_by_nunjucks(template: str, expected: str) -> None:
    """A template of the allowed kinds gives the text that Nunjucks gives."""
    assert Templates().render(template, VARIABLES) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ range(10**9) }}", "{{ t.upper() }}", "{{ ''.__class__ }}", "{{ map.constructor }}", "{{ t.toString }}",
        "{{ t | unknown }}", "{{ t | upper(1) }}", "{{ n | upper }}", "{{ list | sort }}", "{{ t | truncate(3) }}",
        "{% include 'x' %}", "{% macro a() %}{% endmacro %}", "{% block a %}{% endblock %}", "{% extends t %}",
        "{% for x in t %}{{ x }}{% endfor %}", "{% for x in list %}{% set y = x %}{% endfor %}",
        "{% for x in list if x %}{% endfor %}", "{{ [1, 2] | join(',', 'a') }}", "{{ {'a': 1} }}", "{{ (1, 2) }}",
        "{{ i / 2 }}", "{{ i ** 2 }}", "{{ i // 2 }}", "{{ i % 2 }}", "{{ t[0:2] }}", "{{ -i }}",
        "{{ null }}", "{{ 'a\\n' }}", "{{ 'a' 'b' }}", "{{ list.0 }}", "{{ 0x10 }}", "{{ 1e3 }}", "{{ 1 < 2 < 3 }}",
        "{{ map == map }}", "{{ t < i }}", "{{ none_ ~ t }}", "{{ t is string }}", "{%+ if t %}{% endif %}",
        "{#- a -#}{{ t }}", "{{ emoji[0] }}", "{% raw %}",
        "{{ env.HOME }}", "{{ range }}{{ t | upper }}", "{% for x in _conversation %}{% endfor %}",
        "{{ a === b }}", "{{ t ~ t is not defined }}", "{{ not t == t }}",
        "{% if t %}", "{{", "{{}}", "{{ t-i }}", "{{ #each x }}",
    ],
)  # fmt: skip
def test_other_templates_are_refused(template: str) -> None:
    """A template for which Nunjucks might give another text, or code, is unsupported."""
    with pytest.raises(UnsupportedError, match=r"^a template with "):
        Templates().render(template, VARIABLES)


@pytest.mark.parametrize(
    "template",
    ["{{ missing | upper }}", "{{ missing + 1 }}", "{{ a-b }}", "{{ missing ~ t }}", "{{ missing.deep | dump }}",
     "{{ missing | length }}", "{% for x in missing %}x{% endfor %}", "{% set y = missing %}{{ t }}",
     "{{ t if yes else missing }}", "{% if t %}{{ missing }}!{% endif %}"],
)  # fmt: skip
def test_a_missing_variable_within_an_expression_is_a_mistake(template: str) -> None:
    """A template that uses a variable which is not there is refused, wherever it stands, as `{{missing}}` is."""
    with pytest.raises(MissingVariableError, match=r'there is no variable "(missing|a)"'):
        Templates().render(template, VARIABLES)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if missing %}{{ missing }}{% else %}b{% endif %}", "b"),
        ("{% if missing == 'de' %}a{% elif other %}b{% endif %}c", "c"),
        ("{{ missing | default('d') | upper }}{{ missing or 'e' }}{{ not other }}", "De" + "true"),
        ("{% if missing is defined %}{{ missing | upper }}{% endif %}.", "."),
        ("{% for x in missing %}x{% else %}none{% endfor %}", "none"),
        ("{% set y = i %}{{ y + 1 }}{% for x in list %}{{ loop.index }}{{ x | upper }}{% endfor %}", "41A2B"),
    ],
)  # fmt: skip
def test_a_variable_that_the_template_tests_may_be_missing(template: str, expected: str) -> None:
    """A variable may be missing if the template tests whether it is there; Nunjucks gives the same text."""
    assert Templates().render(template, VARIABLES) == expected


def test_filters_of_the_suite_are_refused() -> None:
    """A filter that the suite defines in code is refused, even if it has the name of a built-in one."""
    templates = Templates(["upper", "my-own"])
    with pytest.raises(UnsupportedError, match="the filter upper of nunjucksFilters"):
        templates.render("{{ t |upper }}", VARIABLES)
    assert templates.render("{{ t | lower }}", VARIABLES) == "teal lamp"
    tests = "tests: [{vars: {a: b}, assert: [{type: is-json}]}]"
    text = f"nunjucksFilters: {{upper: ./up.js}}\nprompts: ['{{{{ a | upper }}}}']\n{tests}"
    assert "the filter upper of nunjucksFilters" in refusal(text)


def test_the_environment_is_not_read() -> None:
    """A template with a variable of the environment is refused, and the error says why."""
    with pytest.raises(UnsupportedError, match="variables of the environment are not read: they would change what"):
        Templates().render("{{ env.HOME }}", VARIABLES)


@pytest.mark.parametrize(
    ("template", "variables", "what"),
    [
        ("{% for a in l %}" * 5 + "x" + "{% endfor %}" * 5, {"l": list(range(2000))}, "took more than|needed more"),
        ("{% for a in l %}{{ t }}{% endfor %}", {"l": list(range(90_000)), "t": "x" * 90_000}, "needed|wrote|took"),
        ("{{ t" + " ~ t" * 3000 + " }}", {"t": "x" * 250_000}, "needed more than|took more than|wrote more than"),
        ("{% for a in l %}{{ t }}{% endfor %}", {"l": [1] * 300, "t": "x" * 1000}, "longer|wrote"),
    ],
)  # fmt: skip
def test_a_template_that_grows_ends_within_its_limits(template: str, variables: dict[str, Any], what: str) -> None:
    """A template that takes too long, or writes or needs too much, is an error, soon."""
    began = time.monotonic()
    with pytest.raises((ValueError, UnsupportedError), match=f"{what}|a template with"):
        Templates().render(template, variables)
    assert time.monotonic() - began < 30


def test_a_suite_does_not_wait_for_many_limits() -> None:
    """If several templates of a suite reached a limit, no more are rendered."""
    templates, slow = Templates(), "{% for a in l %}" * 6 + "{% endfor %}" * 6
    for _ in range(MAX_LIMITS_REACHED):
        with pytest.raises(ValueError, match=r"took more than|needed more than"):
            templates.render(slow, {"l": [1] * 3000})
    with pytest.raises(ValueError, match="other templates reached a limit"):
        templates.render("{{ a | upper }}", {"a": "b"})


def test_a_limit_is_an_error_of_the_case() -> None:
    """A template that reaches a limit is an error at its case, with what to do."""
    loops = "{% for a in l %}" * 6 + "{% endfor %}" * 6
    values = "[" + ", ".join("1" * 1 for _ in range(900)) + "]"
    text = f"prompts: ['{loops}']\ntests:\n- {{vars: {{l: {values}}}, assert: [{{type: contains, value: x}}]}}"
    assert refusal(text).startswith("suite.yaml:3:3: prompts[0]: rendering this template ")


@pytest.mark.parametrize("text", ["a {{ b", "function() {{\n}", "{% a", "{# a"])
def test_broken_tags_stay_as_they_are(text: str) -> None:
    """A text in which a line break interrupts a tag stays as it is; with complete tags beside it, it is refused."""
    if "{%" in text:
        with pytest.raises(UnsupportedError):
            Templates().render_lines(text, {})
    else:
        assert Templates().render_lines(text, {}) == text
    with pytest.raises(UnsupportedError, match="a line break inside"):
        Templates().render_lines(f"{{{{ a }}}}\n{text}", {"a": "x"})


def test_inserted_text_is_bounded() -> None:
    """A text that becomes too long by inserting variables is refused."""
    with pytest.raises(ValueError, match="longer than"):
        Templates().render("{{a}}" * 100_000, {"a": "x" * MAX_FILLED})


@pytest.mark.parametrize("template", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if t %}" * 3000])
def test_a_template_that_is_nested_too_deeply_is_refused(template: str) -> None:
    """A template that is nested too deeply for the parser is refused, with a reason that says so."""
    with pytest.raises(UnsupportedError, match=r"parts that are nested too deeply|a syntax that is not"):
        Templates().render(template, VARIABLES)
