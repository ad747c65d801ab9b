"""The project's errands. A fresh machine needs no more than `pip install nox && nox -s benchmark` (or `-s tests`)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")
PINNED = ("-c", "constraints.txt")
SUITE = "suites/workshop"
BASELINE = "workshop"
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
TRAINING = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "evaluate")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@nox.session
def benchmark(session: nox.Session) -> None:
    """Train the workshop's grid on the pocket model, for real, and write the report; arguments go to `harness run`."""
    session.install(*PINNED, ".")
    # The worker processes are to import what was just installed, not the checkout they are started in.
    session.run("harness", "run", *_with_suite(session.posargs), env={"PYTHONSAFEPATH": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, side by side on up to four cores; arguments go to pytest (`-n 0` for one after another)."""
    session.install(*PINNED, "-e", ".", *_group("test"))
    # Each process of its own on one core: two that share both cores wait for each other most of the time.
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs, env=OFFLINE | {"OMP_NUM_THREADS": "1"})


@nox.session
def browser(session: nox.Session) -> None:
    """The report's page in Debian's Chromium, which must be there (`apt-get install chromium`)."""
    # Nothing here trains, and torch alone is most of what a session installs.
    session.install(*PINNED, *_without(TRAINING), *_group("browser"))
    session.install("--no-deps", "-e", ".")
    session.run("pytest", "tests/report/test_browser.py", *session.posargs, env=OFFLINE | {"HARNESS_BROWSER": "1"})


@nox.session
def gguf(session: nox.Session) -> None:
    """GGUF files by a real llama.cpp, which is built once (minutes) and kept in this session's environment."""
    session.install(*PINNED, "-e", ".", *_group("test"))
    session.env["XDG_CACHE_HOME"] = str(Path(session.virtualenv.location) / "cache")
    session.run("harness", "doctor", "--install-llama-cpp")
    session.run("pytest", "-m", "gguf", *session.posargs, env=OFFLINE | {"HARNESS_GGUF": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and layout, by ruff."""
    session.install(*PINNED, *_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", "--quiet", ".")


@nox.session
def types(session: nox.Session) -> None:
    """The package, and its public interface as users write it, by mypy --strict."""
    session.install(*PINNED, "-e", ".", *_group("types"))
    session.run("mypy", "--strict")


@nox.session
def minimums(session: nox.Session) -> None:
    """The quick tests with every dependency at its declared lower bound (torch's is proven on a GPU machine)."""
    session.install(_pin("torch"), *_lower_bounds(), *_group("test"))
    session.install("--no-deps", "-e", ".")
    session.run("pytest", "-m", "not slow", *session.posargs, env=OFFLINE)


@nox.session
def regression(session: nox.Session) -> None:
    """Train the workshop's grid `gate` and hold it against the committed baseline; arguments go to `harness gate`."""
    session.install(*PINNED, ".")
    run = Path(session.create_tmp()) / "run"
    shutil.rmtree(run, ignore_errors=True)  # what it trained is in the cache
    asked = ["--grid", "gate", "--engine", "reference", "--confirm-seeds", "0", "--profile", "cpu"]
    session.run("harness", "run", SUITE, *asked, "--output", str(run), env={"PYTHONSAFEPATH": "1"})
    session.run("harness", "gate", str(run), "--baseline", BASELINE, *session.posargs)


@nox.session
def perf(session: nox.Session) -> None:
    """How long it takes to do what must be quick; figures are printed and stored in reports/perf, nothing is judged."""
    session.install(*PINNED, ".", *_group("browser"))
    for script in sorted(Path("tests/benchmarks").glob("*.py")):
        session.run("python", "-m", f"tests.benchmarks.{script.stem}", "--output", f"reports/perf/{script.stem}.json")


def _with_suite(arguments: list[str]) -> list[str]:
    """`harness run` arguments, led by the workshop's suite unless they name one themselves."""
    leads = bool(arguments) and not arguments[0].startswith("-")
    named = leads or any((Path(argument) / "suite.yaml").exists() for argument in arguments)
    return arguments if named else [SUITE, *arguments]


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def _lower_bounds() -> list[str]:
    """`name==bound` for every dependency but torch."""
    dependencies = [d for d in PROJECT["project"]["dependencies"] if not d.startswith("torch>=")]
    return [dependency.replace(">=", "==") for dependency in dependencies]


def _without(names: tuple[str, ...]) -> list[str]:
    """Every dependency but these."""
    return [d for d in PROJECT["project"]["dependencies"] if re.split(r"[<>=]", d)[0] not in names]


def _pin(name: str) -> str:
    found = re.search(rf"^{name}==.+$", Path("constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise LookupError(f"constraints.txt pins no {name}")
    return found.group()
