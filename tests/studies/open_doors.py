"""Takes out one guard after another, and shows that tests fail for each door that is then open.

    python -m tests.studies.open_doors [--only WORD] [--output FILE [--more]]

Each guard is taken out by replacing its text in a copy of the package; then the tests that it names run on the copy.
With all guards, all of these tests must pass. Exits with 1 if they do not, or if no test fails without a guard.
A test process has limits of time and memory, since without guards some tests never end: that counts as a failure, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core import programs

ROOT = Path(__file__).parents[2]
SECONDS = 300
MEMORY = 12 * 2**30
"""Limits of one test process. Importing torch takes several GiB of address space."""


@dataclass(frozen=True)
class Guard:
    """A guard: what it keeps out, the text of the package that is replaced, and the tests that must fail without it."""

    kind: str
    keeps_out: str
    module: str
    text: str
    without: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The tests that failed without a guard, at most three."""

    kind: str
    keeps_out: str
    taken_out: str
    failed: tuple[str, ...]
    ended: str
    """How the tests ended: `passed`, `failed`, or `hung` if a limit of time or memory ended them."""
    seconds: float

    @property
    def noticed(self) -> bool:
        return self.ended != "passed"


PROGRAMS = ("tests/core/test_programs.py",)
LIMITED = ("tests/core/test_limited_process.py",)
FOREIGN = ("tests/models/test_foreign_files.py",)
OUTSIDE = ("tests/core/test_outside_text.py", "tests/cli/test_output.py")
MAIN = ("tests/cli/test_main.py",)
GUARDS = (
    Guard(
        "other programs", "modules of the current folder", "core/programs.py",
        '(sys.executable, "-P", *arguments)', "(sys.executable, *arguments)", PROGRAMS,
    ),
    Guard(
        "other programs", "programs of the current folder", "core/programs.py",
        "if Path(folder).is_absolute())", "if folder is not None)", PROGRAMS,
    ),
    Guard(
        "other programs", "commands that a git repository names", "core/programs.py",
        '_GIT = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")',
        "_GIT = ()", PROGRAMS,
    ),
    Guard(
        "workers", "a worker that outlives its parent", "core/programs.py",
        'if sys.platform == "linux":', 'if sys.platform == "none":', PROGRAMS,
    ),
    Guard(
        "limits", "work without end", "core/limited_process.py",
        "signal.setitimer(signal.ITIMER_REAL, limits.seconds)", "pass", LIMITED,
    ),
    Guard(
        "limits", "work that fills the memory", "core/limited_process.py",
        "resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))", "pass", LIMITED,
    ),
    Guard(
        "limits", "endless output", "core/limited_process.py",
        "len(value) > limits.output", "len(value) > 10**12", LIMITED,
    ),
    Guard(
        "files of models", "pipes, devices and folders", "models/foreign_files.py",
        "if not stat.S_ISREG(mode):", "if False:", FOREIGN,
    ),
    Guard(
        "files of models", "links that leave the folder", "models/foreign_files.py",
        "if path.is_symlink() and not any(", "if False and not any(", FOREIGN,
    ),
    Guard(
        "files of models", "deep JSON", "models/foreign_files.py",
        "if _depth(found) > _DEEPEST:", "if False:", FOREIGN,
    ),
    Guard(
        "files of models", "long numbers", "models/foreign_files.py",
        "if len(digits) > _LONGEST_NUMBER:", "if False:", FOREIGN,
    ),
    Guard(
        "files of models", "large files", "models/foreign_files.py",
        "if size > _limit(path):", "if False:", (*FOREIGN, "tests/models/test_resolving.py"),
    ),
    Guard(
        "files of models", "panics of libraries", "models/foreign_files.py",
        'if type(error).__name__ != "PanicException":', "if True:", FOREIGN,
    ),
    Guard(
        "files of models", "models with code of their own", "models/resolving.py",
        'if "auto_map" in config:', "if False:", ("tests/models/test_resolving.py",),
    ),
    Guard(
        "adapters", "ranks and types that PEFT cannot use", "models/adapter_config.py",
        "    if not fits:", "    if False:", ("tests/models/test_adapter_config.py",),
    ),
    Guard(
        "adapters", "patterns without end", "models/adapter_config.py",
        "    if not texts:", "    if True:", ("tests/models/test_adapter_config.py",),
    ),
    Guard(
        "adapters", "pickled weights", "models/foreign_adapters.py",
        "        if pickled:", "        if False:", ("tests/models/test_foreign_adapters.py",),
    ),
    Guard(
        "adapters", "changes of the base model", "models/foreign_adapters.py",
        "    if changing:", "    if False:", ("tests/models/test_foreign_adapters.py",),
    ),
    Guard(
        "suites", "files outside the suite", "suites/case_files.py",
        "if not found.is_relative_to((root or folder).resolve()):", "if False:",
        ("tests/suites/test_case_files.py", "tests/suites/test_load_suite.py"),
    ),
    Guard(
        "suites", "a suite that is a link", "suites/__init__.py",
        "text = reader(folder, root)(file.name)", "text = file.read_text(encoding='utf-8')",
        ("tests/suites/test_load_suite.py",),
    ),
    Guard(
        "suites", "too many cases", "suites/cases.py",
        "if number > MAX_CASES:", "if False:", ("tests/suites/test_cases.py",),
    ),
    Guard(
        "suites", "deep YAML", "core/yaml/document.py",
        "if depth > MAX_DEPTH:", "if False:", ("tests/core/test_yaml.py",),
    ),
    Guard(
        "suites", "aliases that double", "core/yaml/document.py",
        "if self.repeated > MAX_REPEATED:", "if False:", ("tests/suites/test_load_suite.py",),
    ),
    Guard(
        "suites", "code without --allow-code", "runner/preparation.py",
        "if code and not allowed:", "if False:", ("tests/suites/test_promptfoo.py",),
    ),
    Guard(
        "suites", "patterns of assertions without end", "scoring/assertion_types/text.py",
        "timeout=REGEX_SECONDS", "timeout=None",
        ("tests/scoring/assertion_types/test_structure.py", "tests/scoring/test_judging.py"),
    ),
    Guard(
        "suites", "templates that Nunjucks would render differently", "suites/promptfoo/template_grammar.py",
        "        if what := _uncertain(kind, value):", "        if what := '':",
        ("tests/suites/promptfoo/test_templates.py",),
    ),
    Guard(
        "grids", "millions of trials", "suites/grids/__init__.py",
        "if len(variants) * len(chosen) > MAX_TRIALS:", "if False:", ("tests/suites/test_grids.py",),
    ),
    Guard(
        "grids", "millions of combinations", "suites/grids/__init__.py",
        "if size > MAX_CELLS:", "if False:", ("tests/suites/test_grids.py",),
    ),
    Guard(
        "rows", "a row with too much text", "suites/rows/__init__.py",
        "if own > MOST_ROW:", "if False:", ("tests/suites/rows",),
    ),
    Guard(
        "rows", "too much text", "suites/rows/__init__.py",
        "if length > MOST_TEXT:", "if False:", ("tests/suites/rows",),
    ),
    Guard(
        "rows", "too many columns", "suites/rows/columns.py",
        "len(names) > MOST_COLUMNS", "False", ("tests/suites/rows",),
    ),
    Guard(
        "text from outside", "control characters", "core/outside_text.py",
        'return _INVISIBLE.sub(_symbol, text.replace("\\r\\n", "\\n"))', "return text", OUTSIDE,
    ),
    Guard(
        "text from outside", "control characters in the terminal", "cli/output.py",
        "click.echo(visible(str(text)), err=err, nl=nl)", "click.echo(str(text), err=err, nl=nl)", OUTSIDE,
    ),
    Guard(
        "text from outside", "control characters in tables", "cli/output.py",
        "segment._replace(text=visible(segment.text))", "segment", OUTSIDE,
    ),
    Guard(
        "text from outside", "markup in Markdown", "core/outside_text.py",
        'return " ".join(visible(text).split()).translate(_ESCAPES)', "return text", OUTSIDE,
    ),
    Guard(
        "text from outside", "a fence that ends a block of code", "core/outside_text.py",
        "max(3, _longest_fence(text) + 1)", "3", OUTSIDE,
    ),
    Guard(
        "text from outside", "formulas in CSV files", "core/outside_text.py",
        "shown.lstrip().startswith(_FORMULA)", "False", OUTSIDE,
    ),
    Guard(
        "text from outside", "scripts in the page", "report/__init__.py",
        "autoescape=True", "autoescape=False", ("tests/report/test_page.py",),
    ),
    Guard(
        "exit codes", "1 after a broken pipe", "cli/__init__.py",
        "if ended.code == 1:", "if False:", MAIN,
    ),
    Guard(
        "exit codes", "a traceback after a bug", "cli/__init__.py",
        "except BaseException as bug:", "except ZeroDivisionError as bug:", MAIN,
    ),
    Guard(
        "exit codes", "a traceback after a second Ctrl-C", "cli/__init__.py",
        "    except KeyboardInterrupt:  # a second", "    except ZeroDivisionError:  # a second", MAIN,
    ),
    Guard(
        "exit codes", "workers that go on after SIGTERM and SIGHUP", "cli/__init__.py",
        "raise SystemExit(128 + number)", "return", MAIN,
    ),
    Guard(
        "records", "a changed record of a trial", "storage/records.py",
        "and seal != _seal(data):", "and False:", ("tests/storage/test_records.py", "tests/storage/test_cache.py"),
    ),
    Guard(
        "records", "a changed file of an adapter", "storage/manifest.py",
        "if not path.is_file() or file_digest(path) != expected:", "if False:", ("tests/storage/test_manifest.py",),
    ),
    Guard(
        "records", "a file that the manifest does not list", "storage/manifest.py",
        "if unknown := sorted(", "if unknown := () and sorted(", ("tests/storage/test_manifest.py",),
    ),
    Guard(
        "records", "an edited baseline", "storage/baselines.py",
        'if data.get("digest") != _content_digest(data)', "if False", ("tests/storage/test_baselines.py",),
    ),
    Guard(
        "records", "a pipe or a device in place of a record", "storage/files.py",
        "if not stat.S_ISREG(found.st_mode):", "if False:", ("tests/storage/test_files.py",),
    ),
    Guard(
        "files that are written", "links in place of a cache's folder", "storage/files.py",
        "    if folder.is_symlink():", "    if False:", ("tests/storage", "tests/export/test_export.py"),
    ),
    Guard(
        "files that are written", "files that are half written", "storage/files.py",
        'with partial.open("w", encoding', 'with path.open("w", encoding', ("tests/storage/test_files.py",),
    ),
    Guard(
        "files that are written", "the error of a full disk", "storage/files.py",
        "return number in _DISK_FULL or any(", "return False and any(", ("tests/storage",),
    ),
    Guard(
        "clean", "a run that begins while the cache is emptied", "storage/cache.py",
        "            with locked(self.root / _CLEARING, *why, patience=_PATIENCE):\n                held",
        "            if True:\n                held", ("tests/storage/test_cache.py",),
    ),
    Guard(
        "clean", "the cache of a run", "storage/cache.py",
        'for lock in sorted((self.root / _USERS).glob("*.lock")):', "for lock in ():", ("tests/storage/test_cache.py",),
    ),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """Copy the package and its tests."""
    for name in ("harness", "tests", "suites", "docs", "reports/baselines", "reports/perf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), *ROOT.glob("*.py")):
        shutil.copy(path, folder)
    return folder


def failing(folder: Path, tests: Sequence[str], seconds: float) -> tuple[str, tuple[str, ...]]:
    """Run tests in the copy. Return how they ended, and the names of those that failed."""
    options = ("-q", "--tb=no", "-rfE", "--maxfail=3", "-p", "no:cacheprovider", "-m", "not slow and not browser")
    environment = os.environ | {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        programs.python("-m", "pytest", *options, *tests), cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, preexec_fn=_limit, start_new_session=True,
    ) as pytest:  # fmt: skip
        try:
            printed, _ = pytest.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return "hung", ()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pytest.pid, signal.SIGKILL)  # also what a test has left, such as a worker without a guard
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
    if pytest.returncode not in (0, 1) and not failed:
        return "hung" if pytest.returncode < 0 else "failed", (printed[-300:],)
    return "passed" if pytest.returncode == 0 else "failed", tuple(failed)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def outcomes(folder: Path, guards: Sequence[Guard]) -> Iterator[Outcome]:
    """Take out each guard and put it back."""
    for guard in guards:
        path = folder / "harness" / guard.module
        whole = path.read_text(encoding="utf-8")
        if whole.count(guard.text) != 1:
            raise SystemExit(f"{guard.module} has {whole.count(guard.text)} times: {guard.text}")
        path.write_text(whole.replace(guard.text, guard.without), encoding="utf-8")
        began = time.monotonic()
        ended, failed = failing(folder, guard.tests, SECONDS)
        path.write_text(whole, encoding="utf-8")
        taken = f"{guard.module}: {guard.text.strip()}"
        yield Outcome(guard.kind, guard.keeps_out, taken, failed, ended, round(time.monotonic() - began, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of the kind of a guard, or of what it keeps out")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--more", action="store_true", help="keep the other guards in the record --output")
    given = parser.parse_args()
    guards = [guard for guard in GUARDS if given.only in f"{guard.kind}: {guard.keeps_out}"]
    names = {(guard.kind, guard.keeps_out) for guard in guards}
    found = [each for each in (past(given.output) if given.more else ()) if (each.kind, each.keeps_out) not in names]
    with tempfile.TemporaryDirectory(prefix="open-doors-") as scratch:
        folder = copied(Path(scratch))
        for each in outcomes(folder, guards):
            found.append(each)
            print(f"{each.ended:7} {each.kind}: {each.keeps_out}: {len(each.failed)} {each.failed[:2]}", flush=True)
        whole, wrong = failing(folder, sorted({test for guard in guards for test in guard.tests}), 10 * SECONDS)
    print("with all guards:", whole, *wrong)
    unnoticed = [f"{each.kind}: {each.keeps_out}" for each in found if not each.noticed]
    report = {
        "command": "python -m tests.studies.open_doors --output FILE",
        "with_all_guards": whole,
        "guards": len(found),
        "unnoticed": unnoticed,
        "outcomes": [asdict(each) for each in found],
    }
    print({name: value for name, value in report.items() if name != "outcomes"})
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(bool(unnoticed) or whole != "passed")


def past(record: Path) -> Sequence[Outcome]:
    """Return the outcomes of a record."""
    return [Outcome(**each) for each in json.loads(record.read_text(encoding="utf-8"))["outcomes"]]


if __name__ == "__main__":
    sys.exit(main())
