"""Tests of how promptfoo's prompts are read: texts, paths, patterns, mappings, files and conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from harness.suites.promptfoo.prompts import names_file
from tests.support.suite_texts import asked, suite_in, texts

ONE = "tests: [{vars: {q: Why}, assert: [{type: contains, value: x}]}]\n"
CHAT = '[{"role": "system", "content": "Be short."}, {"role": "user", "content": "{{q}}"}]'
AS_CHAT = [[("system", "Be short."), ("user", "Why")]]


@pytest.mark.parametrize("prompt", ["one.txt", "file://one.txt", "./one.txt", "sub/../one.txt"])
def test_a_path_is_read(tmp_path: Path, prompt: str) -> None:
    """A prompt that is a path, with or without file://, stands for the text in that file."""
    options = {"root": tmp_path} if ".." in prompt else {}
    (tmp_path / "sub").mkdir()
    found = suite_in(tmp_path, {"suite.yaml": f"prompts: [{prompt}]\n{ONE}", "one.txt": "One word: {{q}}\n"}, **options)
    assert texts(found) == ["One word: Why"]


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("a.txt", True), ("prompts/a", True), ("a.js:f", True), ("p*", True), ("file://a", True), ("a.py", True),
        ("What is it?", False), ("a.txt\n", False), ("Say {{q}}", False), ("Read langfuse://a.txt", False),
    ],
)  # fmt: skip
def test_which_texts_are_paths(text: str, is_path: bool) -> None:
    """A text is a path by promptfoo's rule: its suffix or slash, and no line break."""
    assert names_file(text) is is_path


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """If a prompt is a path of a file that does not exist, the suite is refused; the path is not asked."""
    with pytest.raises(SuiteError, match=r'there is no file "none\.txt"'):
        suite_in(tmp_path, {"suite.yaml": f"prompts: [none.txt]\n{ONE}"})


def test_a_sentence_with_a_slash_is_a_text(tmp_path: Path) -> None:
    """A sentence with a slash, which promptfoo would refuse as a path, is asked as a text."""
    found = suite_in(tmp_path, {"suite.yaml": f"prompts: ['Is 1/2 more than {{{{q}}}}']\n{ONE}"})
    assert texts(found) == ["Is 1/2 more than Why"]


@pytest.mark.parametrize("pattern", ["p/*.txt", "p/**/*.txt", "file://p/[ab].txt"])
def test_a_pattern_stands_for_its_files(tmp_path: Path, pattern: str) -> None:
    """A pattern stands for the prompts in all files that fit it, in the order of their names."""
    files = {"suite.yaml": f"prompts: ['{pattern}']\n{ONE}", "p/b.txt": "B {{q}}", "p/a.txt": "A {{q}}"}
    assert texts(suite_in(tmp_path, files)) == ["A Why", "B Why"]


def test_a_pattern_of_other_folders_is_refused(tmp_path: Path) -> None:
    """A pattern that leads out of the suite's folder is refused; it is neither followed nor asked."""
    with pytest.raises(SuiteError, match=r"suite\.yaml:1:11: file://\.\./\*\.txt leads out of the suite's folder"):
        suite_in(tmp_path, {"suite.yaml": f"prompts: ['../*.txt']\n{ONE}"})


def test_text_files_are_split_at_separators(tmp_path: Path) -> None:
    """In a .txt file, lines with only --- and white space separate prompts; blank prompts are left out."""
    files = {"suite.yaml": f"prompts: [p.txt]\n{ONE}", "p.txt": "---\nA {{q}}\r\n --- \nB\n----\n{{q}}\n---\n\n"}
    assert texts(suite_in(tmp_path, files)) == ["A Why", "B\n----\nWhy"]


def test_markdown_files_are_one_prompt(tmp_path: Path) -> None:
    """A .md file is one prompt, with its lines of --- and its white space."""
    files = {"suite.yaml": f"prompts: [p.md]\n{ONE}", "p.md": "# A\n---\n{{q}}\n"}
    assert texts(suite_in(tmp_path, files)) == ["# A\n---\nWhy\n"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", CHAT),
        ("p.yaml", "- {role: system, content: Be short.}\n- role: user\n  content: '{{q}}'\n"),
        ("p.txt", CHAT),
        ("p.txt", "- role: system\n  content: Be short.\n- role: user\n  content: '{{q}}'\n"),
        ("p.jsonl", CHAT),
    ],
)
def test_files_with_conversations(tmp_path: Path, name: str, text: str) -> None:
    """A conversation in a JSON, JSONL or YAML file, or in a text file, is asked as messages."""
    assert asked(suite_in(tmp_path, {"suite.yaml": f"prompts: [{name}]\n{ONE}", name: text})) == AS_CHAT


def test_a_conversation_within_the_suite(tmp_path: Path) -> None:
    """A prompt that is the JSON of a conversation is asked as messages, not as its JSON text."""
    assert asked(suite_in(tmp_path, {"suite.yaml": f"prompts: ['{CHAT}']\n{ONE}"})) == AS_CHAT


@pytest.mark.parametrize("chat", [CHAT, "- role: system\n  content: Be short.\n- {role: user, content: '{{q}}'}"])
def test_a_conversation_as_the_prompt_of_a_case(tmp_path: Path, chat: str) -> None:
    """The prompt of a case, or the column `prompt` of a CSV, may be a conversation; it is not asked as it stands."""
    cell = chat.replace('"', '""')
    csv = f'prompt,q,__expected\n"{cell}",Why,contains: x\n'
    assert asked(suite_in(tmp_path, {"suite.yaml": "tests: c.csv\n", "c.csv": csv})) == AS_CHAT


def test_a_value_cannot_break_a_conversation(tmp_path: Path) -> None:
    """Variables are inserted into the messages of a conversation, so quotes and line breaks in them stay text."""
    tests = 'tests: [{vars: {q: "a\\"}, {\\"\\nb"}, assert: [{type: contains, value: x}]}]'
    found = suite_in(tmp_path, {"suite.yaml": f"prompts: ['{CHAT}']\n{tests}"})
    assert asked(found) == [[("system", "Be short."), ("user", 'a"}, {"\nb')]]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("p.py", "prompts from code or a service"),
        ("p.js:f", "prompts from code or a service"),
        ("exec:./a.sh", "prompts from code or a service"),
        ("langfuse://x", "prompts from code or a service"),
        ('{"role": "user"}', "a prompt in JSON that is no conversation"),
        ('[{"role": "tool", "content": "x"}]', "a conversation with other roles or parts"),
        (
            '[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]',
            "a conversation with other parts than",
        ),
        ('[{"role": "assistant", "content": "x"}]', "a conversation that is not a user and an assistant in turn"),
        ('[{"role": "user", "content": "{{q}}"},', "a conversation whose JSON has a mistake"),
        ("- role: user\n  content: [", "a conversation whose YAML has a mistake"),
    ],
)
def test_other_prompts_are_not_asked(tmp_path: Path, prompt: str, reason: str) -> None:
    """A prompt from code, or a conversation that a chat template cannot take, is unsupported; it is not asked raw."""
    written = "prompts:\n- |-\n" + "".join(f"  {line}\n" for line in prompt.splitlines())
    with pytest.raises(SuiteError, match="these features are not supported") as caught:
        suite_in(tmp_path, {"suite.yaml": f"{written}{ONE}", "p.py": "", "p.js": ""})
    assert reason in str(caught.value)


def test_a_prompt_in_double_quotes_keeps_them(tmp_path: Path) -> None:
    """A prompt that is one text in JSON is asked with its quotes, and what is inserted is escaped, as in promptfoo."""
    tests = 'tests: [{vars: {q: "a \\"b\\"\\n"}, assert: [{type: contains, value: x}]}]'
    found = suite_in(tmp_path, {"suite.yaml": f"prompts: ['\"Say {{{{q}}}}\"']\n{tests}"})
    assert texts(found) == ['"Say a \\"b\\""']


def test_templates_in_values_of_a_conversation(tmp_path: Path) -> None:
    """Other templates than names are evaluated in a variable of a text prompt, and not in one of a conversation."""
    tests = 'tests: [{vars: {q: "{% if 1 %}x{% endif %}"}, assert: [{type: contains, value: x}]}]'
    files = {"suite.yaml": f"prompts: ['Say {{{{q}}}}', '{CHAT}']\n{tests}"}
    assert texts(suite_in(tmp_path, files)) == ["Say x", "{% if 1 %}x{% endif %}"]


def test_mappings_give_labels(tmp_path: Path) -> None:
    """Prompts may have labels and ids; a case asks only the prompts that it names by them, also with a * at the end."""
    tests = """
prompts:
- {id: one, label: First, raw: "A {{q}}"}
- {id: "file://two.txt", label: Second}
- {raw: "C {{q}}", label: "Third:c"}
defaultTest: {assert: [{type: contains, value: x}]}
tests:
- {vars: {q: 1}, prompts: [one]}
- {vars: {q: 2}, prompts: [Second]}
- {vars: {q: 3}, prompts: [Third, F*]}
- {vars: {q: 4}}
"""
    found = suite_in(tmp_path, {"suite.yaml": tests, "two.txt": "B {{q}}"})
    assert texts(found) == ["A 1", "B 2", "A 3", "C 3", "A 4", "B 4", "C 4"]


def test_a_mapping_from_paths_to_labels(tmp_path: Path) -> None:
    """Prompts may be a mapping from paths or texts to labels."""
    files = {"suite.yaml": f"prompts: {{p.txt: first, 'Say {{{{q}}}}': second}}\n{ONE}", "p.txt": "P {{q}}"}
    assert texts(suite_in(tmp_path, files)) == ["P Why", "Say Why"]


def test_without_prompts_the_variable_prompt_is_asked(tmp_path: Path) -> None:
    """If the suite has no prompts, a case asks its variable `prompt`, which may be a conversation."""
    test = "tests: [{vars: {prompt: Hi}, assert: [{type: contains, value: x}]}]\n"
    assert texts(suite_in(tmp_path, {"suite.yaml": test})) == ["Hi"]
    (tmp_path / "chat").mkdir()
    assert asked(suite_in(tmp_path / "chat", {"suite.yaml": test.replace("Hi", f"'{CHAT}', q: Why")})) == AS_CHAT


def test_patterns_of_many_folders_end(tmp_path: Path) -> None:
    """`**` in a row mean one; a pattern with several others, which could be compared for hours, is refused."""
    files = {"suite.yaml": f"prompts: ['{'**/' * 20}*.txt']\n{ONE}", "a/" * 20 + "p.txt": "A {{q}}"}
    assert texts(suite_in(tmp_path, files)) == ["A Why"]
    with pytest.raises(SuiteError, match=r'"\*\*/a/\*\*/a/\*\*/p\.txt" has more than 2 times \*\*'):
        suite_in(tmp_path, {"suite.yaml": f"prompts: ['**/a/**/a/**/p.txt']\n{ONE}"})
