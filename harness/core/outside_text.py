"""Make text from outside harmless before it is shown: text of suites, models, adapters, runs and error messages.

Control characters can clear a terminal, write its clipboard or hide text; marks of text direction can make text look
like other text. In Markdown, a text can load images, mention people or end a block of code. In CSV files, spreadsheets
run some texts as formulas.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)
_CONTROL_NAMES = re.findall(
    r"\w+",
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US",
)
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_[]|#~$!"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"}
"""How signs with a meaning in Markdown are written: entities for HTML, and `@` so that it mentions nobody."""
_ESCAPES = str.maketrans(_MARKDOWN)
_FORMULA = tuple("=+-@＝＋－＠")
"""Signs with which spreadsheets begin a formula (OWASP, CSV injection). Some read the full-width signs as well."""


def visible(text: str) -> str:
    """Replace control characters, text-direction marks and lone surrogates by their names, such as ‹ESC›.

    Unicode's own pictures of control characters are not used, because many fonts lack them.
    """
    return _INVISIBLE.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"‹{_CONTROL_NAMES[code]}›" if code < len(_CONTROL_NAMES) else f"‹U+{code:04X}›"


def one_line(text: str, length: int) -> str:
    """Return a text as one line without control characters, cut to `length` characters.

    `##[`, which begins a command of Azure Pipelines, is broken up.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("##[", "## [")
    return line if len(line) <= length else line[: length - 1] + "…"


def markdown(text: str) -> str:
    """Return a text as one line of a Markdown sentence or table that shows it as it is."""
    return " ".join(visible(text).split()).translate(_ESCAPES)


def markdown_code(text: str, length: int = 300) -> str:
    """Return a text as Markdown code in a line, with a fence of more backticks than it has in any one place."""
    line = one_line(text, length).replace("|", "¦")
    fence = "`" * (1 + _longest_fence(line))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`" if line else "``  ``"


def fenced(text: str, language: str = "text") -> str:
    """Return a block of Markdown code. Its fence is longer than any fence in the text, so the text cannot end it."""
    fence = "`" * max(3, _longest_fence(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def _longest_fence(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def csv_cell(text: str) -> str:
    """Return a text as a cell of a CSV file, with an apostrophe before a text that a spreadsheet runs as a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(("\t", "\r")) or shown.lstrip().startswith(_FORMULA) else shown
