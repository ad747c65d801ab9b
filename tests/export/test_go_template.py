"""Tests of the translation of chat templates into Go templates, and of what Go renders with these."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.core.errors import ExportError, SuiteError
from harness.core.limited_process import Refused
from harness.core.suite import Message
from harness.export.go_template import Ask, GoTemplate, first_difference, translate
from harness.models.chat_templates import ChatTemplate
from tests.support.go_program import has_go, rendered_by_go

EACH = "{% for m in messages %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK
WITH_DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
HEADERS = (
    EACH
    + "{% if loop.first %}<|begin|>{% endif %}<|h|>{{ m.role }}<|/h|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    + "<|h|>assistant<|/h|>\n\n"
)
SYSTEM_IN_TURN = (
    "{% set system = '' %}{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + "
    "'\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    + EACH
    + "{% if m.role == 'user' %}<s>[INST] {{ system if loop.first else '' }}{{ m.content }} [/INST]"
    + "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
SYSTEM_NEEDED = "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
SYSTEM_LAST = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}"
    "{{ '[INST]' if m.role == 'user' else '' }}{{ system if loop.last else '' }}{{ m.content }}[/]{% endfor %}"
)
TEMPLATES = {
    "ChatML": CHATML,
    "with a default system message": WITH_DEFAULT,
    "headers": HEADERS,
    "system in the first turn": SYSTEM_IN_TURN,
    "no system": NO_SYSTEM,
    "system needed": SYSTEM_NEEDED,
    "system last": SYSTEM_LAST,
}
HARD = (
    "Say {{ .System }} and {{- end }}",
    'Quote """, \\, \\n and `back`.',
    "Ünï, 漢字, 😀, \x7f\x00 and \u00a0.",
    "<|im_end|>",
    "{% if x %}",
)
TALKS = [
    *([Message("user", text)] for text in HARD),
    *([Message("system", text), Message("user", "Hi")] for text in HARD),
    [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")],
    [Message("user", "a"), Message("user", "b"), Message("system", "c"), Message("user", "d")],
    [Message("assistant", "a"), Message("user", "b")],
]


def asked(template: str) -> Ask:
    """Return a function that renders conversations with a Jinja template."""

    def ask(messages: Sequence[Message]) -> str:
        (text,) = ChatTemplate(template, {}).render([(messages, True)])
        if isinstance(text, Refused):
            raise SuiteError(text.reason)
        return text

    return ask


@pytest.mark.parametrize(
    ("template", "system"),
    [(CHATML, True), (WITH_DEFAULT, True), (HEADERS, True), (SYSTEM_IN_TURN, True), (NO_SYSTEM, False)],
)
def test_the_translation_renders_what_the_chat_template_renders(template: str, system: bool) -> None:
    """A translated template renders conversations with and without a system message as the chat template does."""
    ask = asked(template)
    found = translate(ask)
    assert found.has_system == system
    talk = [Message("user", text) if at % 2 == 0 else Message("assistant", text) for at, text in enumerate(HARD)]
    for start in ((), (Message("system", HARD[0]),))[: 1 + system]:
        for length in (1, 3, 5):
            messages = (*start, *talk[:length])
            assert found.render(messages) == ask(messages)


def test_a_system_message_that_is_required_or_moved() -> None:
    """If a template requires system messages, so does the result. If it moves them, the result leaves them out."""
    user = [Message("user", "Hi")]
    assert translate(asked(SYSTEM_NEEDED)).render([Message("system", "S"), *user]).startswith("<|im_start|>system\nS<")
    moved = translate(asked(SYSTEM_LAST))
    assert not moved.has_system
    assert moved.render([Message("system", "S"), *user]) == moved.render(user) == "[INST]Hi[/]"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (EACH + "{{ loop.index }}{{ m.content }}{% endfor %}", "it writes '2' in one conversation"),
        ("{{ messages | map(attribute='content') | reverse | join }}", "in another order"),
        ("{{ raise_exception('never') }}", "never"),
    ],
)
def test_what_roles_do_not_determine_is_refused(template: str, reason: str) -> None:
    """A template is refused, with the reason, if the text between messages depends on more than their roles."""
    with pytest.raises(ExportError, match=re.escape(reason)) as refused:
        translate(asked(template))
    assert "--to gguf" in refused.value.remedy


def test_the_text_that_llama_cpp_adds_is_left_out() -> None:
    """A beginning that llama.cpp adds itself is removed; if conversations begin with another text, this is refused."""
    found = translate(asked(HEADERS))
    assert found.without("<|begin|>").render([Message("user", "Hi")]).startswith("<|h|>user")
    assert found.without("") == found
    with pytest.raises(ExportError, match="puts '<s>' before each conversation"):
        found.without("<s>")


def test_the_first_difference_is_shown() -> None:
    """A message about two texts shows the place where they begin to differ, also at the end of one of them."""
    assert first_difference("abcd", "abXd").startswith("from character 3 on, the run was asked 'abcd'")
    assert "from character 3 on" in first_difference("ab", "abc")


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[GoTemplate]], list[list[str]]]:
    """Return a function that renders `TALKS` with Go."""
    if not has_go():
        if os.environ.get("HARNESS_GO"):
            pytest.fail("HARNESS_GO is set, and there is no Go: apt-get install golang-go")
        pytest.skip("there is no Go")
    folder: Path = tmp_path_factory.mktemp("go")
    return lambda templates: rendered_by_go(folder, [(each.source(), TALKS) for each in templates])


@pytest.mark.go
def test_go_renders_what_is_computed(go: Callable[[Sequence[GoTemplate]], list[list[str]]]) -> None:
    """Go's text/template renders every conversation as `GoTemplate.render` does, also with text special to Go."""
    found = [translate(asked(template)) for template in TEMPLATES.values()]
    special = GoTemplate({("", "user"): "".join(HARD), ("user", ""): '{{ "" }}\n "'})
    templates = [*found, special]
    assert all(each.source().isascii() for each in templates)
    assert go(templates) == [[each.render(talk) for talk in TALKS] for each in templates]
