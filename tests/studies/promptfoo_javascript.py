"""Compares the verdicts of the assertion type `javascript` with those of promptfoo, which runs the code in Node.

    python -m tests.studies.promptfoo_javascript [FOLDER] --promptfoo DIST --node NODE [--output FILE]

The pairs are those of `CODE` and `ANSWERS`; the record holds promptfoo's verdict on each (`+` if the answer passes), so
that a test can compare them without promptfoo. FOLDER is as for tests.studies.promptfoo_suites. The code in its suites
is judged as well, with answers made of the texts in it, and only the numbers are recorded. Exits with 1 if a verdict
differs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.core.suite import Assertion, Case, Message
from harness.scoring.assertion_types.javascript import needs_node
from harness.scoring.findings import Evidence, Scoring
from harness.scoring.judging import judge
from harness.scoring.values import FILE
from tests.studies.promptfoo_oracle import Oracle
from tests.studies.promptfoo_suites import configurations, parsed

VARIABLES = {"city": "Paris", "n": 5, "flags": {"polite": True, "tags": ["a", "b"]}, "none": None}
ANSWERS = (
    "The capital of France is Paris.",
    '{"city": "Paris", "n": 5, "tags": ["a", "b"], "score": 0.75}',
    "I am sorry, but I cannot help with that; ask a human.",
    "1, 2, 3\n4, 5, 6\n",
    "naïve café – 𝒳 東京 😀",
    "",
)
CODE: tuple[tuple[str, float | None], ...] = (
    ("output.includes('Paris')", None),
    ("output.includes(context.vars.city)", None),
    ("!output.includes('Paris')", None),
    ("output.length", None),
    ("output.length", 30),
    ("output.length / 100", 0.3),
    ("output === ''", None),
    ("output.trim().split(/\\s+/).length <= 6", None),
    ("output.split('\\n').filter(Boolean).length", None),
    ("JSON.parse(output)", None),
    ("JSON.parse(output).n === context.vars.n", None),
    ("JSON.parse(output).score", None),
    ("JSON.parse(output).score", 0.8),
    ("(() => { try { return JSON.parse(output).tags.length === 2 } catch { return false } })()", None),
    ("(() => { try { return JSON.parse(output).score ?? 0.5 } catch { return 0.25 } })()", None),
    ("({pass: output.length > 10, score: 0.4, reason: 'length'})", None),
    ("({pass: output.length > 10, score: 0.4, reason: 'length'})", 0.9),
    ("({pass: true, score: '1', reason: 'a text as score'})", None),
    ("({pass: true})", None),
    ("output.match(/[A-Z]\\w+/g).length > 1", None),
    ("/par(is|ty)/i.test(output)", None),
    ("/\\p{Lu}/u.test(output)", None),
    ("/\\p{Script=Han}/u.test(output)", None),
    ("[...output].length === output.length", None),
    ("output.normalize('NFD').length > output.length", None),
    ("output.codePointAt(0) > 80", None),
    ("output.at(-1) === '.'", None),
    ("output.replaceAll(',', '').length", 20),
    ("output.toLowerCase().indexOf('i')", None),
    ("output.localeX?.length ?? true", None),
    ("output && 'a text'", None),
    ("null", None),
    ("undefined", None),
    ("NaN", None),
    ("-1", None),
    ("0", None),
    ("0", 0),
    ("1e300 * 1e300", None),
    ("10n > 5n", None),
    ("10n", None),
    ("missing.property", None),
    ("throw new Error('no')", None),
    ("return true", None),
    ("true;", None),
    ("true;;  ", None),
    ("const s = output.trim(); s.length > 3", None),
    ("const s = output.trim(); s.includes(';')", None),
    ("let n = 0; for (const c of output) { if (c === 'a') n++; } n > 1", None),
    ("var a = 'x;y'; a === 'x;y'", None),
    ("const onlyDeclared = true", None),
    ("const a = \"it's; so\", b = `${output};`; b.length > a.length", None),
    ("async function f() { return true }", None),
    ("(async () => output.length > 40)()", None),
    ("(async () => { throw new Error('later') })()", None),
    ("Promise.resolve(0.3)", 0.3),
    ("new Promise((done) => Promise.resolve().then(() => done(output.length > 5)))", None),
    ("new Boolean(true)", None),
    ("new Number(1)", None),
    ("Object.keys(context.vars).length === 4", None),
    ("context.vars.flags.polite && context.vars.flags.tags.includes('b')", None),
    ("context.vars.none === null", None),
    ("context.vars.unknown === undefined", None),
    ("typeof context.prompt === 'number'", None),
    ("new Set(output).size > 12", None),
    ("output.split('').reverse().join('') > output", None),
    ("[3, 1, 2].toSorted().join('') === '123'", None),
    ("Object.groupBy([...output], (c) => c)['a']?.length > 1", None),
    ("structured.clone", None),
    ("(function f(n) { return n ? f(n - 1) : true })(1000)", None),
    ("(function f() { return f() })()", None),
    ("const words = output.split(' ');\nreturn words.length > 4;", None),
    ("if (output.length > 20) {\n  return {pass: true, score: 0.9, reason: 'long'};\n}\nreturn false;", None),
    ("// a comment\nreturn output.includes('cannot') ? 0 : 1", None),
    ("let total = 0;\nfor (const part of output.matchAll(/\\d+/g)) total += Number(part[0]);\nreturn total / 21;", 0.9),
    ("output.length > 1\n", None),
    ("const f = (x) => x.length;\nf(output) > 3", None),
    ("function check(x) { return x.startsWith('The'); }\nreturn check(output);", None),
    ("class A { #n = 1; get n() { return this.#n } }\nreturn new A().n === 1;", None),
    ("label: for (const a of [1, 2]) { for (const b of [1]) { continue label; } }\nreturn true;", None),
    ("console.log(output); return true", None),
    ("console.log(output) || true", None),
    ("'use strict'; true", None),
    ("output.includes('}') ? true : false // }", None),
    ("true } { false", None),
    ("Math.max(...output.split('').map((c) => c.charCodeAt(0))) < 128", None),
    ("Number.parseFloat(output) === 1", None),
    ("Date.UTC(2026, 0, 1) > 0", None),
    ("new Date('2026-01-02').toISOString().startsWith('2026-01-02')", None),
    ("output.split(' ').every((word) => word.length < 9)", None),
    ("encodeURIComponent(output).includes('%')", None),
    ("JSON.stringify(context.vars.flags) === '{\"polite\":true,\"tags\":[\"a\",\"b\"]}'", None),
)  # fmt: skip
RISKY = re.compile(r"\b(?:globalThis|constructor|eval|Function|global|module)\b")
"""Names with which code of other people could leave the function in which promptfoo runs it."""
TEXTS = re.compile(r"'([^'\\\n]{1,60})'|\"([^\"\\\n]{1,60})\"")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--promptfoo", type=Path, required=True)
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    oracle = Oracle(given.promptfoo, given.node)
    own = list(own_pairs())
    answers = oracle.ask("verdicts", own)
    record: dict[str, Any] = {
        "command": "python -m tests.studies.promptfoo_javascript FOLDER --promptfoo DIST --node NODE",
        "own": compared(own, answers),
    }
    if given.folder:
        others = list(pairs_in(given.folder))
        theirs = compared(others, oracle.ask("verdicts", others))
        for found in theirs.pop("different"):
            print(json.dumps(found, ensure_ascii=False), file=sys.stderr)
        record["code in suites"] = theirs | {
            "expressions that run": len({pair["assertion"]["value"] for pair in others}),
            "expressions that need Node": len({code for code in code_in(given.folder) if needs_node(code)}),
        }
    record["verdicts"] = "".join("+" if answer["value"]["pass"] else "-" for answer in answers)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return int(bool(record["own"]["different"]))


def own_pairs() -> Iterator[dict[str, Any]]:
    """Yield the recorded pairs: each code with each answer, and every third of them negated as well."""
    for number, (code, threshold) in enumerate(CODE):
        limit = {} if threshold is None else {"threshold": threshold}
        kinds = ("javascript", "not-javascript") if number % 3 == 0 else ("javascript",)
        for kind in kinds:
            for answer in ANSWERS:
                yield {"assertion": {"type": kind, "value": code, **limit}, "answer": answer.strip(), "vars": VARIABLES}


def code_in(folder: Path) -> Iterator[str]:
    """Yield the JavaScript in the configurations of a folder, each once."""
    seen: set[str] = set()
    for repository in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in configurations(repository):
            for code in written_in(parsed(path.read_text(encoding="utf-8"))):
                if code not in seen and not code.startswith(FILE) and "{{" not in code:
                    seen.add(code)
                    yield code


def written_in(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if str(part.get("type")).removeprefix("not-") == "javascript" and isinstance(part.get("value"), str):
            yield part["value"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from written_in(inner)


def pairs_in(folder: Path) -> Iterator[dict[str, Any]]:
    numbers = random.Random(0)
    for code in code_in(folder):
        if needs_node(code) or RISKY.search(code):
            continue
        texts = [one or other for one, other in TEXTS.findall(code)]
        made = [" ".join(texts), json.dumps({text: text for text in texts}), *texts[:2], *numbers.sample(ANSWERS, 2)]
        for answer in dict.fromkeys(text.strip() for text in made):
            yield {"assertion": {"type": "javascript", "value": code}, "answer": answer, "vars": VARIABLES}


def compared(pairs: list[dict[str, Any]], answers: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    different: list[Any] = []
    for pair, theirs in zip(pairs, answers, strict=True):
        ours = verdict(pair)
        if "error" in theirs or ours is None:
            counts["not judged by promptfoo" if "error" in theirs else "not judged by the harness"] += 1
        elif ours == theirs["value"]["pass"]:
            counts["equal"] += 1
        else:
            different.append([pair["assertion"], pair["answer"], {"harness": ours, "promptfoo": theirs["value"]}])
    return {"pairs": len(pairs), **counts, "different": different}


def verdict(pair: dict[str, Any]) -> bool | None:
    """Judge a pair with the harness; None if it cannot be judged."""
    written = pair["assertion"]
    kind = written["type"]
    assertion = Assertion(
        "javascript", written["value"], negated=kind.startswith("not-"), threshold=written.get("threshold")
    )
    case = Case("", (Message("user", "Question?"),), (assertion,), vars=pair["vars"])
    check = judge(assertion, Evidence(pair["answer"], case, Scoring(allow_code=True)))
    return None if check.score is None else check.passed


if __name__ == "__main__":
    sys.exit(main())
