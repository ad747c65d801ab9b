import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import programs

PACKAGE = Path(programs.__file__).parents[1]
STARTS = frozenset({"Popen", "run", "call", "check_call", "check_output", "getoutput", "system", "popen", "spawnv"})


def starts(file: Path) -> Iterator[int]:
    """Yield the lines of a module that start a process."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        if not isinstance(owner, ast.Name):
            continue
        starts_any = owner.id in {"subprocess", "os"} and node.func.attr in STARTS
        if starts_any or (owner.id == "os" and node.func.attr.startswith(("exec", "spawn", "posix_spawn"))):
            yield node.lineno


def test_only_the_owner_starts_programs() -> None:
    """Only `programs` starts processes, so that each start is safe in a hostile folder."""
    found = {
        str(file.relative_to(PACKAGE)): list(starts(file))
        for file in sorted(PACKAGE.rglob("*.py"))
        if any(starts(file))
    }
    assert set(found) == {"core/programs.py"}, found


def test_every_start_of_python_is_built_by_the_owner() -> None:
    """No other module uses `sys.executable`, which would start Python without the protection of `programs.python`."""
    users = [
        str(file.relative_to(PACKAGE))
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.name != "programs.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "executable"
    ]
    assert sorted(users) == ["export/llama_cpp.py", "models/smollm2.py"]  # these name the program in a remedy


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which every module and program that could be picked up leaves a file `PWNED`."""
    for module in ("json", "pip", "llama_cpp", "torch", "harness"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w')", encoding="utf-8")
    for program in ("git", "cmake", "c++"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {tmp_path}/PWNED\n", encoding="utf-8")
        (tmp_path / program).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join(("", ".", os.environ["PATH"])))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", ".", "sub")))
    return tmp_path


def test_python_imports_no_module_of_the_current_folder(hostile_folder: Path) -> None:
    """A Python program imports its modules from the installation, not from the current folder."""
    done = programs.run(programs.python("-c", "import json, sys; print(json.__file__)"))
    assert str(hostile_folder) not in done.stdout
    assert not (hostile_folder / "PWNED").exists()


def test_a_module_is_not_run_from_the_current_folder(hostile_folder: Path) -> None:
    """`python -m pip` runs the installed pip, even if the current folder has a file `pip.py`."""
    programs.run(programs.python("-m", "pip", "--version"))
    assert not (hostile_folder / "PWNED").exists()


def test_programs_are_not_looked_up_in_the_current_folder(hostile_folder: Path) -> None:
    """A program is found through the absolute folders of PATH only."""
    found = programs.which("git")
    assert found is not None
    assert Path(found).is_absolute()
    assert hostile_folder not in Path(found).parents
    assert programs.which("cmake") != str(hostile_folder / "cmake")


@pytest.mark.parametrize("setting", ["core.fsmonitor", "core.hooksPath"])
def test_git_runs_no_command_of_a_repository(tmp_path: Path, setting: str) -> None:
    """Git is asked without the file system monitor and the hooks that a repository's configuration names."""
    git = [programs.which("git") or "git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "tracked").write_text("x", encoding="utf-8")
    subprocess.run([*git, "add", "tracked"], check=True)
    trap = tmp_path / "hooks" / "post-index-change"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/PWNED\n", encoding="utf-8")
    trap.chmod(0o755)
    value = f"touch {tmp_path}/PWNED; false" if setting == "core.fsmonitor" else str(trap.parent)
    subprocess.run([*git, "config", setting, value], check=True)
    os.utime(tmp_path / "tracked", (1, 1))
    assert "tracked" in programs.git(tmp_path, "status", "--porcelain")
    assert not (tmp_path / "PWNED").exists()


def test_an_answer_of_git_without_a_repository_is_empty(tmp_path: Path) -> None:
    """Outside a repository, and without git, the answer is an empty text."""
    assert programs.git(tmp_path, "rev-parse", "HEAD") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_process_in_native_code_ends_with_its_parent(number: signal.Signals) -> None:
    """A module's process is killed with its parent, even if native code hangs while the module is still imported."""
    parent = (
        "import subprocess, sys; from harness.core import programs;"
        "child = subprocess.Popen(programs.module('tests.support.hanging'), stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read()"
    )
    started = subprocess.Popen(
        programs.python("-c", parent),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=programs.environment({"PYTHONPATH": str(PACKAGE.parent)}),
    )
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.send_signal(number)
    started.communicate()
    assert _gone(pid)


def _gone(pid: int) -> bool:
    """Wait up to 5 seconds until a process has ended."""
    import time

    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
