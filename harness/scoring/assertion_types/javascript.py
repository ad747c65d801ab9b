"""The assertion type `javascript`: an expression, a function's body, or a function in a file beside the suite.

The code runs in a child process with limits, and only with --allow-code. It gets promptfoo's `output` and `context`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache
from typing import Any

from harness.core.javascript import SPACE
from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused
from harness.core.suite import Assertion, Case
from harness.scoring.assertion_type import NUMBER, AssertionType, Extra, Need, Value
from harness.scoring.findings import AnswerFailsError, CannotScoreError, Evidence, Finding, Scoring, code_file, quote
from harness.scoring.values import FILE, filled, misnamed

NO_FUNCTION = "the file exports no such function"
CHILD = "harness.scoring.javascript_process"
LIMITS = Limits(seconds=60.0, processor=1.5, memory=8 * 2**30)
"""A limit of processor time gives the same scores on a busy machine. The start of another child takes less than a
second of it, so that every evaluation ends within 3 seconds of it. The child measures its memory itself, and its
address space is so large that it can get any single object first.
"""
MAX_LIMITS_REACHED = 3
"""Number of answers for which the same code may reach a limit before it is not run any more."""


class _Sandbox:
    """The child process, and how often each code reached a limit."""

    def __init__(self) -> None:
        self._process, self._limits_reached = LimitedProcess(CHILD, LIMITS), Counter[str]()

    def find(self, code: str, name: str) -> None:
        """Raise `CannotScoreError` if a module's code does not export a function with this name, or the default."""
        found = self._done({"code": code, "name": name, "output": "", "context": {}, "find": True}, code)
        if found["kind"] == "threw":
            raise CannotScoreError(f"the file threw {quote(found['value'])}")
        if found["kind"] != "boolean":
            raise CannotScoreError(NO_FUNCTION)

    def compile(self, code: str, name: str | None) -> None:
        """Raise `CannotScoreError` if code is no program. Nothing is run."""
        found = self._done({"code": code, "name": name, "compile": True}, code)
        if found["kind"] == "wrong":
            raise CannotScoreError(f"is no JavaScript: {found['value']}")

    def run(self, code: str, name: str | None, output: str, context: dict[str, Any]) -> dict[str, Any]:
        """Return what the code returned or threw; raise `CannotScoreError` if it reached a limit."""
        if self._limits_reached[code] >= MAX_LIMITS_REACHED:
            raise CannotScoreError(f"not run, because it reached a limit for {MAX_LIMITS_REACHED} other answers")
        return self._done({"code": code, "name": name, "output": output, "context": context, "find": False}, code)

    def _done(self, item: dict[str, Any], code: str) -> dict[str, Any]:
        try:
            (found,) = self._process.work(None, [item])
        except LimitReachedError as reached:
            found = {"kind": "limit", "value": str(reached)}
        if isinstance(found, Refused):
            raise CannotScoreError(f"the JavaScript could not be run: {found.reason}")
        if not _is_outcome(found):
            raise CannotScoreError("the JavaScript changed how its result is written, so that it cannot be read")
        if found["kind"] == "limit":
            self._process.close()  # it has a high peak of memory, by which the next evaluation would be measured
            self._limits_reached[code] += 1
            raise CannotScoreError(f"the JavaScript {found['value']}")
        return dict(found)


_TEXT: dict[str, type] = {"value": str}
_OUTCOMES: dict[str, dict[str, type]] = {
    "boolean": {"value": bool},
    "number": {"value": float},
    "grade": {"pass": bool, "score": float, "reason": str},
    "wrong": _TEXT,
    "threw": _TEXT,
    "limit": _TEXT,
    "no function": {},
    "pending": {},
}
"""The fields of each kind of outcome. A float is written as a text, since JSON has no infinite numbers."""


def _is_outcome(found: Any) -> bool:
    """Whether the child's reply has a known form. The suite's code ran in the child, and may have changed it."""
    fields = _OUTCOMES.get(str(found.get("kind"))) if isinstance(found, dict) else None
    return fields is not None and all(_has_type(found.get(name), kind) for name, kind in fields.items())


def _has_type(value: Any, kind: type) -> bool:
    if kind is not float:
        return isinstance(value, kind)
    try:
        return isinstance(value, str) and isinstance(float(value), float)
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _sandbox() -> _Sandbox:
    return _Sandbox()


def _javascript(evidence: Evidence, assertion: Assertion) -> Finding:
    written = str(assertion.value)
    if not evidence.scoring.allow_code:
        raise CannotScoreError("runs code, which only --allow-code permits")
    EXTRA.check()
    if written.startswith(FILE):
        code, name = _module(written, evidence.scoring)
        found = _sandbox().run(code, name, evidence.text, _context(evidence.case, evidence.text))
    else:
        found = _sandbox().run(function_body(written), None, evidence.text, _context(evidence.case, evidence.text))
    return _finding(found, assertion)


def _module(written: str, scoring: Scoring) -> tuple[str, str]:
    """Return the code of the file that a value names, and the name of its function."""
    path, name = _file_and_name(written)
    return _as_common_module(code_file(path, scoring).read_text(encoding="utf-8", errors="replace")), name


def _load(value: Any, scoring: Scoring) -> None:
    _sandbox().find(*_module(str(value), scoring))


def _compile(value: Any, text: str) -> None:
    """Raise `CannotScoreError` with a remedy in the second line if code, or the text of its file, is no program."""
    written = str(value)
    if written.startswith(FILE):
        _sandbox().compile(_as_common_module(text), "")
        return
    try:
        _sandbox().compile(function_body(written), None)
    except CannotScoreError as problem:
        is_line = "\n" not in written.rstrip(SPACE)
        hint = (
            " A text of one line is an expression: write it without `return`, or in several lines." if is_line else ""
        )
        raise CannotScoreError(f"{problem}\nCorrect the code.{hint}") from None


_EXPORT = re.compile(r"\bexports?\b")


def _misnamed(value: Any, text: str) -> str:
    """Describe a function that the text of a file cannot export; else return an empty text."""
    path, name = _file_and_name(value)
    if not _EXPORT.search(text):
        return f"names {path}, which exports nothing\nExport the function: module.exports = (output, context) => ..."
    return misnamed(name, text, path) if name else ""


def _context(case: Case, output: str) -> dict[str, Any]:
    """Return promptfoo's context, as far as it applies: a run has no provider, no trace and no metadata."""
    test = {"vars": case.vars, "description": case.description}
    return {"prompt": case.prompt, "vars": case.vars, "test": test, "providerResponse": {"output": output}}


def _finding(found: dict[str, Any], assertion: Assertion) -> Finding:
    kind = found["kind"]
    if kind == "boolean":
        return Finding(found["value"], f"the JavaScript returned {str(found['value']).lower()}")
    if kind == "number":
        value = float(found["value"])
        holds = value > 0 if assertion.threshold is None else value >= assertion.threshold
        return Finding(holds, f"the JavaScript returned {value:.4g}", _share(value))
    if kind == "grade":
        return Finding(
            found["pass"], found["reason"] or "the JavaScript returned a grade", _share(float(found["score"]))
        )
    if kind == "wrong":
        raise AnswerFailsError(f"the JavaScript returned {found['value']}, not true, false, a number or a grade")
    if kind == "threw":
        raise AnswerFailsError(f"the JavaScript threw {quote(found['value'])}")
    raise CannotScoreError(NO_FUNCTION if kind == "no function" else "the promise never settles")


def _share(value: float) -> float:
    return 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)


# --- code --------------------------------------------------------------------------------------------------------

_DECLARATION = re.compile(r"(?:const|let|var)\s")
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`|\\.|['"`].*|;""", re.DOTALL)


def function_body(written: str) -> str:
    """Return the body of the function that promptfoo makes of a text.

    A text of several lines is a body. One line is an expression; if it begins with a declaration, the expression is
    what follows its last semicolon.
    """
    body = written.rstrip(SPACE)
    if "\n" in body:
        return body
    line = re.sub(r";+\s*$", "", body.strip(SPACE))
    if not _DECLARATION.match(line):
        return f"return {line}"
    ends = [found.end() for found in _QUOTED.finditer(line) if found.group() == ";"]
    rest = line[ends[-1] :].strip(SPACE) if ends else ""
    return f"{line[: ends[-1]]} return {rest}" if rest else line


_DEFAULT = re.compile(r"^export\s+default\s+", re.MULTILINE)
_EXPORTED = re.compile(r"^export\s+((?:async\s+)?function\s*\*?|const|let|var|class)\s+(\w+)", re.MULTILINE)


def _as_common_module(text: str) -> str:
    """Rewrite the exports of an ECMAScript module as those of a CommonJS module."""
    names = [found[2] for found in _EXPORTED.finditer(text)]
    without = _EXPORTED.sub(r"\1 \2", _DEFAULT.sub("module.exports.default = ", text))
    return "\n".join([without, *(f"module.exports.{name} = {name};" for name in names)])


# --- values ------------------------------------------------------------------------------------------------------

_NODE = re.compile(
    r"""(?<![\w.$'"-])(?:process\s*\.|require\s*\(|import\s*[({*'"]|import\s+\w|fetch\s*\(|Buffer\s*[.(]|new\s+URL\w*\s*\(|set(?:Timeout|Interval|Immediate)\s*\(|structuredClone\s*\(|atob\s*\(|btoa\s*\(|new\s+Text(?:En|De)coder\b|crypto\s*\.|Intl\s*\.)"""
)
_LOCALE = re.compile(r"\.(?:toLocale(?:String|DateString|TimeString)|localeCompare)\s*\(")


def needs_node(code: str) -> str:
    """Describe code that uses what QuickJS does not have; else return an empty text."""
    found = _NODE.search(code) or _LOCALE.search(code)
    return f"that uses {found.group().strip(' .({*')} of Node" if found else ""


def _unsupported(value: Any) -> str:
    written = str(value)
    if not written.startswith(FILE):
        return needs_node(written) or ("from a package" if written.startswith("package:") else "")
    return "" if re.fullmatch(r".+\.[cm]?js(:\w+)?", written) else "in a file that is not JavaScript"


def _file_and_name(value: Any) -> tuple[str, str]:
    """Return the path of the file that a value names, and the name of its function; empty for the default export."""
    path, colon, name = str(value).removeprefix(FILE).rpartition(":")
    return (path, name) if colon else (name, "")


def _file(value: Any) -> str:
    return _file_and_name(value)[0] if str(value).startswith(FILE) else ""


def _code(value: Any) -> str:
    return _file(value) or "inline code"


EXTRA = Extra("quickjs", "javascript")
TYPES = (
    AssertionType(
        "javascript",
        Value(
            filled,
            code=_code,
            file=_file,
            misnamed=_misnamed,
            load=_load,
            compile=_compile,
            unsupported=_unsupported,
            unsupported_file=needs_node,
        ),
        _javascript,
        "is accepted by this JavaScript expression, body of a function, or `file://NAME.js:function`; needs "
        "`--allow-code`",
        "what the code returns, limited to 0 to 1",
        NUMBER,
        frozenset({Need.VARIABLES}),
        extra=EXTRA,
    ),
)
