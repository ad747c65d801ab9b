"""Tests of the assertion type `javascript`, which runs code in QuickJS."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.limited_process import LimitedProcess, LimitReachedError
from harness.core.scores import Score
from harness.core.suite import Assertion, Case, Message
from harness.scoring import ASSERTION_TYPES, Scoring, broken_code, score, unusable_code
from harness.scoring.assertion_types.javascript import CHILD, LIMITS, function_body, needs_node
from tests.studies.promptfoo_javascript import own_pairs, verdict

pytest.importorskip("quickjs", reason="needs the extra javascript")
RECORD = Path(__file__).parents[3] / "reports" / "studies" / "promptfoo-javascript.json"
MODULE = """
module.exports = (output, context) => output.includes(context.vars.city);
module.exports.strict = (output) => ({ pass: output.length > 2, score: 0.5, reason: "long enough" });
"""
ECMASCRIPT = """
export const least = 3;
export async function isLong(output) { return output.length > least; }
export default function (output) { return output === "yes"; }
"""


def judged(code: str, text: str = "Paris", *, folder: Path | None = None, allow: bool = True, **more: object) -> Score:
    case = Case("a", (Message("user", "Where?"),), (Assertion("javascript", code, **more),), vars={"city": "Paris"})  # type: ignore[arg-type]
    return score(case, text, Scoring(folder, allow_code=allow))


def test_verdicts_are_those_of_promptfoo() -> None:
    """More than 300 pairs of code and answer get the verdict that promptfoo gave them in Node."""
    pairs, recorded = list(own_pairs()), json.loads(RECORD.read_text(encoding="utf-8"))["verdicts"]
    assert len(pairs) == len(recorded) > 300
    found = "".join({True: "+", False: "-", None: "?"}[verdict(pair)] for pair in pairs)
    assert [pair for pair, ours, theirs in zip(pairs, found, recorded, strict=True) if ours != theirs] == []


@pytest.mark.parametrize(
    "code",
    [
        "for (;;) {}\nreturn true",
        "(() => { const all = []; for (;;) all.push('x'.repeat(1e6) + all.length); })()",
        "new Uint8Array(2e9).length",
        "/^(a+)+$/.test('a'.repeat(60) + 'b')",
        "[...Array(5).keys()].map(() => new Uint8Array(2e7).sort().join('x').length).length",
    ],
)
def test_an_overrun_ends_within_three_seconds(code: str) -> None:
    """Endless loops, large objects and long calls of native code end within 3 s of processor time, without a score."""
    judged("true")  # starts the child process
    began = _spent()
    found = judged(code)
    assert _spent() - began < 3
    assert found.value is None
    assert "the JavaScript took more than" in found.error or "MiB of memory" in found.error


@pytest.mark.parametrize(
    "bomb", ["new Uint8Array(2e9)", "(() => { const all = []; for (;;) all.push(new ArrayBuffer(3e7)); })()"]
)
def test_code_that_catches_its_lack_of_memory_gives_no_score(bomb: str) -> None:
    """Code that needs too much memory has no score, whatever it returns, and the next answer has one."""
    assert "128 MiB of memory" in judged(f"try {{ {bomb} }} catch {{ }}\nreturn true").error
    assert judged("new Uint8Array(5e7).length").passed


def _spent() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def test_a_busy_machine_gives_the_same_scores() -> None:
    """An answer gets its score also if the child process waits for longer than its limit of processor time."""
    process = LimitedProcess(CHILD, replace(LIMITS, processor=0.2))
    item = {"code": "return true", "name": None, "output": "", "context": {}, "find": False}
    try:
        process.work(None, [item])
        assert process._child is not None
        os.kill(process._child.pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (process._child.pid, signal.SIGCONT)).start()
        assert process.work(None, [item]) == [{"kind": "boolean", "value": True}]
        with pytest.raises(LimitReachedError, match=r"took more than 0\.2 s of processor time"):
            process.work(None, [item | {"code": "for (;;) {}"}])
    finally:
        process.close()


def test_code_that_reached_a_limit_often_is_not_run_again() -> None:
    """After three answers for which code reached a limit, the other answers get an error at once."""
    code = "new Uint8Array(19e8).length"
    assert all("of memory" in judged(code).error for _ in range(3))
    assert "not run" in judged(code).error


@pytest.mark.parametrize(
    "code",
    [
        """(JSON.stringify = () => '{"kind":"number","value":"abc"}', true)""",
        """(Object.prototype.toJSON = () => ({ kind: "grade", pass: true, score: "q", reason: "" }), true)""",
        "(String.prototype.slice = () => 1, Promise = String = null, true)",
        "(Promise.prototype.then = () => 0, true)",
    ],
)
def test_code_cannot_change_how_its_result_is_written(code: str) -> None:
    """The result is what the code returned, even if the code replaced the functions that describe it."""
    assert judged(code).value == 1


@pytest.mark.parametrize(
    "grade",
    [
        "{ get score() { return this.read++ ? 'q' : 1; }, read: 0, pass: true, reason: '' }",
        "{ get pass() { return this.read++ ? 'q' : true; }, read: 0, score: 1, reason: '' }",
    ],
)
def test_a_result_of_another_form_is_no_score(grade: str) -> None:
    """A result whose fields change their types while they are read leaves the answer without a score."""
    found = judged(f"({grade})")
    assert found.value is None
    assert "cannot be read" in found.error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("return output === 'a'", "is no JavaScript: SyntaxError: unexpected token in expression: 'return' (line 1)\n"),
        ("const a = 1;\nreturn a +;", "(line 2)\nCorrect the code."),
        ("file://a.js", "is no JavaScript"),
        ("}); for (;;) {} (function () {", ""),
        ("const a = 1;\nreturn a;", ""),
    ],
)
def test_broken_code_is_found_without_running_it(value: str, words: str) -> None:
    """Code that is no program is described with a remedy, and what is compiled does not run."""
    found = broken_code([Assertion("javascript", value)], lambda _: "module.exports = (output => {")
    assert words in found
    assert bool(found) is bool(words)
    assert ("without `return`" in found) is value.startswith("return")


def test_code_runs_only_with_permission() -> None:
    """Without --allow-code, an answer has no score."""
    assert "--allow-code" in judged("true", allow=False).error


@pytest.mark.parametrize(
    ("file", "text", "name", "answer", "passed"),
    [
        ("check.js", MODULE, "", "in Paris", True),
        ("check.cjs", MODULE, "", "in Rome", False),
        ("check.js", MODULE, ":strict", "Rome", True),
        ("check.mjs", ECMASCRIPT, "", "yes", True),
        ("check.mjs", ECMASCRIPT, ":isLong", "yes", False),
    ],
)
def test_a_file_exports_functions(tmp_path: Path, file: str, text: str, name: str, answer: str, passed: bool) -> None:
    """A file exports one function, or several by name, as a CommonJS or an ECMAScript module."""
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert judged(f"file://{file}{name}", answer, folder=tmp_path).passed is passed


def test_a_missing_function_is_an_error(tmp_path: Path) -> None:
    """If a file exports no function, the answer has no score."""
    (tmp_path / "check.js").write_text("module.exports = 3", encoding="utf-8")
    assert "exports no such function" in judged("file://check.js", folder=tmp_path).error


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (":nofn", MODULE, "names the function nofn, which is not in a.js"),
        (":strict", "function strict() {}", "names a.js, which exports nothing"),
        (":strict", MODULE, ""),
    ],
)
def test_a_function_that_is_not_there_is_found_when_the_suite_is_read(name: str, text: str, words: str) -> None:
    """A file without the function that a value names is described, without running the file."""
    misnamed = ASSERTION_TYPES["javascript"].value.misnamed
    assert misnamed
    assert misnamed(f"file://a.js{name}", text).partition("\n")[0] == words


def test_a_function_that_is_not_exported_is_found_before_a_run(tmp_path: Path) -> None:
    """With --allow-code, the file is run once to find the function, without calling it."""
    (tmp_path / "a.js").write_text("function inner() { throw 1; }\nexports.outer = inner;", encoding="utf-8")
    scoring = Scoring(tmp_path, allow_code=True)
    assert unusable_code([Assertion("javascript", "file://a.js:outer")], scoring) == ""
    assert "exports no such function" in unusable_code([Assertion("javascript", "file://a.js:inner")], scoring)


def test_what_code_throws_fails_the_answer() -> None:
    """An answer for which the code throws an error fails, even if the assertion is negated."""
    assert [judged("JSON.parse(output)", negated=negated).value for negated in (False, True)] == [0, 0]


def test_evaluations_share_nothing() -> None:
    """What one evaluation changes is not seen by the next one."""
    judged("(globalThis.kept = 1, String.prototype.kept = 1, true)")
    assert judged("typeof kept === 'undefined' && ''.kept === undefined").passed


def test_the_last_statement_of_a_line_is_returned() -> None:
    """A line that begins with a declaration returns what follows its last semicolon outside of texts."""
    assert function_body("const a = ';'; a === \";\";") == "const a = ';'; return a === \";\""


@pytest.mark.parametrize(
    "code", ["process.exit(1)", "require('fs')", "await import('fs')", "(1234).toLocaleString() === '1,234'"]
)
def test_what_only_node_has_is_found(code: str) -> None:
    """Code that uses modules, processes or languages of Node is known before it runs."""
    assert needs_node(code)


def test_words_in_texts_are_not_taken_for_code() -> None:
    """A text or a member that is named like a part of Node does not count."""
    assert not needs_node("output.includes('process.exit') || output.require('x') || prefetch(1)")
