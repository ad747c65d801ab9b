"""Tests that the built wheel contains all files of the package, and no others."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest
import yaml

import harness
from harness.cli import main

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """The wheel contains all files of the package, including the pocket model, templates and styles."""
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "harness").rglob("*") if p.is_file()}
    wanted = {file for file in files if "__pycache__" not in file}
    assert wanted <= set(wheel.namelist())
    assert "harness/models/pocket/model.safetensors" in wanted
    assert "harness/suites/new/retain.yaml" in wanted
    assert any(file.startswith("harness/report/") and not file.endswith(".py") for file in wanted)


def test_the_wheel_holds_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    """The wheel contains no tests, suites, reports or caches."""
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert tops == {"harness", next(top for top in tops if top.endswith(".dist-info"))}
    assert not [name for name in wheel.namelist() if "__pycache__" in name]


def test_the_wheel_is_small_enough_to_ship(wheel: zipfile.ZipFile) -> None:
    """All files in the wheel take at most 20 MB together, and those of the pocket model at most 16 MB."""
    sizes = {entry.filename: entry.file_size for entry in wheel.infolist()}
    assert sum(sizes.values()) <= 20e6
    assert sum(size for name, size in sizes.items() if name.startswith("harness/models/pocket/")) <= 16e6


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    """The wheel installs one console script, `harness`, and one pytest plugin."""
    entry_points = next(name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert [line for line in wheel.read(entry_points).decode().splitlines() if line] == [
        "[console_scripts]", "harness = harness.__main__:run", "[pytest11]", "harness = harness.pytest_plugin",
    ]  # fmt: skip


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    """The wheel's metadata have the version, the licence with its text, the supported Pythons and the README."""
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    found = Parser().parsestr(wheel.read(name).decode())
    assert found["Version"] == harness.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert [entry for entry in wheel.namelist() if entry.endswith(f"/licenses/{found['License-File']}")]
    assert found["Requires-Python"] == ">=3.11"
    assert found.get_payload().startswith("# QLoRA harness")  # type: ignore[union-attr]


def test_the_citation_names_the_version() -> None:
    """CITATION.cff has what its format requires, and the package's version and licence."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["version"], cited["license"]) == (harness.__version__, "Apache-2.0")


def test_the_hook_checks_a_suite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command of the hook for pre-commit exits with 0 for a valid suite, and with 2 for a folder without one."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    monkeypatch.chdir(ROOT)
    command = shlex.split(hook["entry"])
    assert command[0] == "harness"
    assert main([*command[1:], "suites/workshop"]) == 0
    assert main([*command[1:], "docs"]) == 2
    assert "suite.yaml" in capsys.readouterr().err
