"""Tests that the built wheel contains all files of the package, and no others."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

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
