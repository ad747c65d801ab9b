"""Counts how many of promptfoo's configurations in a folder can be read, and whether they ask what promptfoo asks.

    python -m tests.studies.promptfoo_suites FOLDER [--own NAME] [--promptfoo DIST --node NODE] [--output FILE]

FOLDER holds one folder for each repository, with its files as they are in the repository; NAME is the folder with
promptfoo's own examples. A configuration is *within reach* if a case of it asserts something about a text, without code
in another language than JavaScript, or the API of another company; this is decided here, from the raw YAML, and not by
the harness. A judge and JavaScript are within reach: only whether such a configuration loads is counted here.
With DIST and NODE, every prompt of a configuration without code is compared with the one that promptfoo gives its echo
provider. Exits with 1 if a prompt differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.core.errors import HarnessError
from harness.core.suite import Case, Suite
from harness.scoring.registry import find
from harness.scoring.transforms import is_plain
from harness.suites import load_suite
from tests.studies.promptfoo_oracle import Oracle

TOP = re.compile(r"^(prompts|providers|targets|tests|scenarios)\s*:", re.MULTILINE)
CODE = re.compile(r"\.(js|ts|mjs|cjs|mts|py|rb|sh|go)\b|exec:|transformVars|package:")
REMOTE = re.compile(r"huggingface:|https://docs\.google|az://|portkey:|langfuse:|helicone:")
MEDIA = re.compile(r"\.(jpe?g|png|gif|webp|bmp|svg|wav|mp3|mp4|m4a|ogg|pdf)\b", re.IGNORECASE)
PARTS = re.compile(
    r"image_url|inlineData|inline_data|input_audio|\"type\":\s*\"(image|audio|document)|type: (image|audio)"
)
REDTEAM = "nothing but a red team (promptfoo makes the questions with its own service)"
NOTHING = "asserts nothing"
JUDGE = "asserts only by code, or another company's API"
NO_TEXT = "asks with code, files that are no text, or what is on the internet"
NOT_FOR_PROMPTFOO = "promptfoo refuses it, too"


@dataclass
class Found:
    """What was found out about one configuration."""

    path: Path
    out_of_reach: str = ""
    whole: bool = False
    """Whether all of its cases and assertions are within reach."""
    unchanged: str = ""
    """The error; empty if it loads."""
    skipping: str = ""
    suite: Suite | None = None
    kinds: Counter[str] = field(default_factory=Counter)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--own", default="")
    parser.add_argument("--promptfoo", type=Path)
    parser.add_argument("--node", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    repositories = sorted(path for path in given.folder.iterdir() if path.is_dir())
    found = [examined(path, repository) for repository in repositories for path in configurations(repository)]
    prompts = compared(found, Oracle(given.promptfoo, given.node)) if given.promptfoo else {}
    own = [one for one in found if one.path.is_relative_to(given.folder / given.own)] if given.own else []
    others = [one for one in found if one not in own]
    record = {
        "command": "python -m tests.studies.promptfoo_suites FOLDER --own NAME --promptfoo DIST --node NODE",
        "repositories": len(repositories),
        "promptfoo's examples": figures(own),
        "other people's suites": figures(others),
        "prompts": prompts,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return int(bool(prompts.get("different") or prompts.get("of these, with another number of cases")))


# --- configurations ----------------------------------------------------------------------------------------------


def configurations(repository: Path) -> Iterator[Path]:
    for path in sorted(repository.rglob("*.y*ml")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if path.is_file() and TOP.search(text) and is_configuration(parsed(text)):
            yield path


def parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def is_configuration(value: Any) -> bool:
    asks = isinstance(value, dict) and any(key in value for key in ("providers", "targets", "prompts"))
    tests = asks and any(key in value for key in ("prompts", "tests", "scenarios", "redteam"))
    return tests and not any(key in value for key in ("jobs", "task"))


def examined(path: Path, repository: Path) -> Found:
    found = Found(path)
    found.out_of_reach, found.whole = reach(parsed(path.read_text(encoding="utf-8")), path.parent)
    for skip in (False, True):
        try:
            found.suite = load_suite(path, skip_unsupported=skip, root=repository)
            error = ""
        except HarnessError as problem:
            error = f"{problem.message.splitlines()[0]} {problem.remedy}"
        if skip:
            found.skipping = error
        else:
            found.unchanged = error
    return found


# --- what is within reach ----------------------------------------------------------------------------------------


def reach(config: dict[str, Any], folder: Path) -> tuple[str, bool]:
    """Return why a configuration is out of reach, or an empty text, and whether all of it is within reach."""
    cases = list(cases_of(config, folder))
    if not cases:
        return (REDTEAM if "redteam" in config else NO_TEXT if config.get("tests") else NOTHING), False
    prompts = prompts_of(config)
    if not any(is_text_prompt(prompt, folder) for prompt in prompts) or config.get("extensions"):
        return NO_TEXT, False
    if not any(case["assert"] for case in cases):
        return NOTHING, False
    textual = [case for case in cases if is_textual(case)]
    asserting = [case for case in textual if any(map(is_text_assertion, case["assert"]))]
    if not asserting:
        return (JUDGE if textual else NO_TEXT), False
    whole = all(case["assert"] and all(map(is_text_assertion, case["assert"])) for case in cases)
    return "", whole and len(textual) == len(cases) and all(is_text_prompt(prompt, folder) for prompt in prompts)


def prompts_of(config: dict[str, Any]) -> list[str]:
    given = config.get("prompts", ["{{prompt}}"])
    listed = [given] if isinstance(given, str) else list(given or [])
    return [str(one.get("raw") or one.get("id") or "") if isinstance(one, dict) else str(one) for one in listed]


def is_text_prompt(prompt: str, folder: Path) -> bool:
    first = prompt.splitlines()[0] if prompt else ""
    file = folder / first.removeprefix("file://")
    is_file = len(first) < 100 and file.is_file()
    text = file.read_text(encoding="utf-8", errors="replace") if is_file else prompt
    return not (CODE.search(first) or REMOTE.search(prompt) or PARTS.search(text))


def cases_of(config: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the cases that are not made by code, with the assertions, variables and options of defaultTest."""
    default = config.get("defaultTest") or {}
    if isinstance(default, str):
        default = parsed((folder / default.removeprefix("file://")).read_text(encoding="utf-8")) or {}
    tests = list(tests_of(config.get("tests"), folder))
    for scenario in config.get("scenarios") or []:
        if isinstance(scenario, dict) and isinstance(scenario.get("config"), list):
            inner = list(tests_of(scenario.get("tests"), folder)) or [{}]
            tests += [merged(one, test) for one in scenario["config"] for test in inner]
    if not tests and config.get("tests") is None and default.get("assert"):
        tests = [{}]
    for test in tests:
        yield {"assert": [], **merged(default, test)}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both: dict[str, Any] = {**first, **second}
    for key in ("vars", "options"):
        one, two = first.get(key) or {}, second.get(key) or {}
        both[key] = {**one, **two} if isinstance(one, dict) and isinstance(two, dict) else two
    both["assert"] = flat([*as_list(first.get("assert")), *as_list(second.get("assert"))])
    return both


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def flat(assertions: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in assertions:
        if isinstance(one, dict):
            found += flat(as_list(one.get("assert"))) if one.get("type") == "assert-set" else [one]
    return found


def tests_of(given: Any, folder: Path) -> Iterator[dict[str, Any]]:
    for entry in [given] if isinstance(given, str | dict) else as_list(given):
        source = entry.get("path") if isinstance(entry, dict) and "path" in entry else entry
        if isinstance(source, dict):
            yield source
        elif isinstance(source, str) and not CODE.search(source) and not REMOTE.search(source):
            name = source.removeprefix("file://").removeprefix("./")
            for file in sorted(folder.glob(name)) if not name.startswith("/") else []:
                yield from rows(file)


def rows(file: Path) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
        for row in csv.DictReader(text.splitlines(keepends=True)):
            cells = [cell for name, cell in row.items() if (name or "").startswith("__expected") and cell]
            yield {"vars": dict(row), "assert": [{"type": type_in(cell), "value": cell} for cell in cells]}
    elif file.suffix == ".jsonl":
        yield from (json.loads(line) for line in text.splitlines() if line.strip())
    else:
        value = parsed(text)
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict))


def type_in(cell: str) -> str:
    kind = re.match(r"(not-)?([a-z-]+)(\([\d.]+\))?(:|$)", cell.strip())
    old = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}
    name = old.get(kind[2], kind[2]) if kind else "equals"
    return "javascript" if cell.startswith("file://") else name


def is_textual(case: dict[str, Any]) -> bool:
    options = case.get("options") if isinstance(case.get("options"), dict) else {}
    transforms = [options[name] for name in ("transform", "postprocess") if options.get(name)]
    values = str(case.get("vars") or "")
    return (
        all(is_plain(transform) for transform in transforms)
        and not options.get("transformVars")
        and not case.get("assertScoringFunction")
        and not re.search(r"file://[^'\"]*\.(js|ts|mjs|cjs|py)\b", values)
        and not (MEDIA.search(values) and "file://" in values)
    )


def is_text_assertion(assertion: dict[str, Any]) -> bool:
    name, value = str(assertion.get("type")), assertion.get("value")
    if find(name) is None or name.removeprefix("not-") in ("python", "perplexity", "evaluate"):
        return False
    is_code = isinstance(value, str) and value.startswith("file://") and CODE.search(value)
    is_code = is_code and name.removeprefix("not-") != "javascript"
    return not is_code and (assertion.get("transform") is None or is_plain(assertion["transform"]))


# --- figures -----------------------------------------------------------------------------------------------------


def figures(found: list[Found]) -> dict[str, Any]:
    within = [one for one in found if not one.out_of_reach]
    whole = [one for one in within if one.whole]
    return {
        "configurations": len(found),
        "loaded unchanged": sum(not one.unchanged for one in found),
        "loaded with --skip-unsupported": sum(not one.skipping for one in found),
        "out of reach": Counter(one.out_of_reach for one in found if one.out_of_reach).most_common(),
        "within reach": len(within),
        "of these, loaded with --skip-unsupported": sum(not one.skipping for one in within),
        "wholly within reach": len(whole),
        "of these, loaded unchanged": sum(not one.unchanged for one in whole),
        "reasons of those within reach that do not load": reasons(one.skipping for one in within),
        "reasons of those wholly within reach that do not load unchanged": reasons(one.unchanged for one in whole),
        "skipped in those that load, by kind": skipped(found),
    }


def reasons(errors: Iterator[str]) -> list[tuple[str, int]]:
    return Counter(re.sub(r'"[^"]*"', '"..."', error)[:150] for error in errors if error).most_common(25)


def skipped(found: list[Found]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for one in found:
        for notice in one.suite.notices if one.suite and not one.skipping else ():
            if notice.startswith("Skipped, because it is not supported: "):
                counts.update(re.sub(r" \((once|\d+ times)\)$", "", what) for what in notice[38:-1].split(", "))
    return counts.most_common(25)


# --- prompts -----------------------------------------------------------------------------------------------------


def compared(found: list[Found], oracle: Oracle) -> dict[str, Any]:
    """Compare the prompts of every suite that loads with those that promptfoo gives its echo provider."""
    safe = [one for one in found if one.suite is not None and not runs_code(one.path)]
    answers = oracle.ask("prompts", [str(one.path.resolve()) for one in safe])
    counts: Counter[str] = Counter()
    different: list[str] = []
    for one, answer in zip(safe, answers, strict=True):
        if "error" in answer:
            counts["suites that promptfoo refuses"] += 1
            continue
        counts["suites"] += 1
        if not one.unchanged and one.suite is not None:
            counts["suites that load unchanged"] += 1
            counts["of these, with another number of cases"] += len(one.suite.cases) != len(answer["value"])
        theirs = {as_asked(prompt) for prompt in answer["value"] if prompt is not None}
        for case in one.suite.cases if one.suite else ():
            ours = conversation(case)
            counts["equal" if ours in theirs else "different"] += 1
            if ours not in theirs:
                different.append(f"{one.path.parent.name}/{one.path.name}")
    return {**counts, "suites with different ones": sorted(set(different))}


def runs_code(path: Path) -> bool:
    """Whether promptfoo would run code of the repository, or ask the internet."""
    text = path.read_text(encoding="utf-8")
    body = re.sub(r"^(providers|targets):.*?(?=^\S)", "", text, flags=re.MULTILINE | re.DOTALL)
    return CODE.search(body) is not None or REMOTE.search(body) is not None


def conversation(case: Case) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.content) for message in case.messages)


def as_asked(prompt: str) -> tuple[tuple[str, str], ...]:
    """Return what a chat provider asks with a prompt that promptfoo rendered: a conversation, or the text of a user."""
    value = chat(prompt)
    if isinstance(value, list) and value and all(isinstance(one, dict) and "role" in one for one in value):
        return tuple((str(one["role"]), content(one.get("content"))) for one in value)
    return (("user", prompt),)


def chat(prompt: str) -> Any:
    """Return the value of a prompt that providers parse: YAML that begins with a role, or JSON."""
    try:
        if prompt.strip().startswith("- role:"):
            # PyYAML takes U+2028 for a line break, as YAML 1.1 does, and promptfoo does not.
            value = yaml.load(prompt.replace("\u2028", "\ue028"), yaml.CBaseLoader)
            return json.loads(json.dumps(value, ensure_ascii=False).replace("\ue028", "\u2028"))
        return json.loads(prompt)
    except (ValueError, yaml.YAMLError):
        return None


def content(value: Any) -> str:
    is_part = isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict)
    return str(value[0].get("text")) if is_part else str(value)


if __name__ == "__main__":
    sys.exit(main())
