"""Tests that text from outside is harmless in Markdown and in CSV files, and that one module is responsible."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.core import outside_text
from harness.core.outside_text import csv_cell, fenced, markdown, markdown_code, one_line

PACKAGE = Path(outside_text.__file__).parents[1]
MARKDOWN = {
    "analysis/regression/gate_output.py": {"markdown_code", "one_line"},
    "export/model_card.py": {"fenced", "markdown", "markdown_code"},
    "report/markdown.py": {"markdown", "markdown_code"},
    "scoring/registry.py": set(),  # a table of its own texts, for docs/assertions.md
}
"""Modules that write headings or tables of Markdown, with what they take from the owner."""
HOSTILE = "![p](http://evil/p.png) <img src=x> @octocat #1 | `b` $x$ &lt;script \x1b[2J\u202e\n# head"


def imported(tree: ast.AST) -> set[str]:
    """Return the names that a module takes from the owner."""
    owner = "harness.core.outside_text"
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == owner)
    return {name.name for node in found for name in node.names}


def texts(tree: ast.AST) -> list[str]:
    """Return the constant texts of a module, also those in f-strings, without docstrings."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documents)
    return [node.value for node in found if isinstance(node.value, str)]


def trees() -> dict[str, ast.AST]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {str(file.relative_to(PACKAGE)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_every_module_that_writes_markdown_asks_the_owner() -> None:
    """A module that writes headings, tables or fences of Markdown is in `MARKDOWN` and uses the owner's functions."""
    signs = re.compile(r"(?:^|\n)(?:#{2,4} |\|-{3}|-{3}\||```\w*\n|<details>)")
    found = {
        name: imported(tree)
        for name, tree in trees().items()
        if any(signs.search(text) for text in texts(tree)) and name != "core/outside_text.py"
    }
    assert {name: found[name] & wanted for name, wanted in MARKDOWN.items()} == MARKDOWN
    assert set(found) == set(MARKDOWN)


def test_every_module_that_writes_csv_asks_the_owner() -> None:
    """Only `report/csv_tables.py` writes CSV files, and it takes `csv_cell` from the owner."""
    writers = ("writer", "DictWriter", "to_csv", "to_excel")
    found = {
        name: "csv_cell" in imported(tree)
        for name, tree in trees().items()
        if any(isinstance(node, ast.Attribute) and node.attr in writers for node in ast.walk(tree))
    }
    assert found == {"report/csv_tables.py": True}


def test_a_sentence_of_markdown() -> None:
    """A text in a sentence loads no image, mentions nobody, is one line, and has no HTML or control characters."""
    shown = markdown(HOSTILE)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert not re.search(r"(?<!\\)[\[\]`|#$!]|<|@(?!\u200b)", shown)


@pytest.mark.parametrize("text", [HOSTILE, "a``b`", "`", "x" * 1000])
def test_code_in_a_line(text: str) -> None:
    """A text as code in a line cannot end the code, and a table's cell cannot end in it."""
    shown = markdown_code(text)
    fence = re.match("`+", shown)
    assert fence
    assert fence[0] not in shown[len(fence[0]) : -len(fence[0])].split(" ")
    assert "|" not in shown
    assert len(shown) < 320


def test_a_block_of_code() -> None:
    """A text cannot end its block of code, and its control characters are shown by name."""
    shown = fenced("a\n````\nb\x1b[2J")
    assert shown == "`````text\na\n````\nb‹ESC›[2J\n`````"


@pytest.mark.parametrize("before", ["", " ", "\t", "\u3000", "\xa0"])
@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_no_cell_is_a_formula(before: str, sign: str) -> None:
    """If a spreadsheet would run a text as a formula, an apostrophe is put before it."""
    assert csv_cell(f"{before}{sign}1").startswith("'")


def test_other_cells_stay_as_they_are() -> None:
    """A text that is no formula is written unchanged."""
    assert csv_cell("a = b\n 1-2") == "a = b\n 1-2"


def test_one_line_breaks_commands_of_pipelines() -> None:
    """A text on one line has no control characters and begins no command of Azure Pipelines."""
    assert one_line("a\x1b[2J\n##[error]b", 40) == "a [2J ## [error]b"
    assert len(one_line("x" * 100, 40)) == 40
