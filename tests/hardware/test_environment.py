"""Tests of the device of a run (a GPU, a larger GPU limited to a T4, or the CPU), and of the harness's commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.core import device_profiles
from harness.core.errors import UsageError
from harness.core.measurement import Basis
from harness.hardware.environment import commit_of, machine
from harness.hardware.gpu import Gpu, first_visible

T4 = Gpu("Tesla T4", (7, 5), 15 << 30)
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)


@pytest.mark.parametrize(
    ("profile", "found", "expected"),
    [
        (device_profiles.AUTO, H100, ("cuda", "bfloat16", Basis.MEASURED, None)),
        (device_profiles.AUTO, T4, ("cuda", "float16", Basis.MEASURED, None)),
        (device_profiles.T4, T4, ("cuda", "float16", Basis.MEASURED, device_profiles.T4.memory_cap)),
        (device_profiles.T4, H100, ("cuda", "float16", Basis.EMULATED, device_profiles.T4.memory_cap)),
        (device_profiles.CPU, H100, ("cpu", "float32", Basis.MEASURED, None)),
        (device_profiles.AUTO, None, ("cpu", "float32", Basis.MEASURED, None)),
    ],
)
def test_machine(
    profile: device_profiles.Profile, found: Gpu | None, expected: tuple[str, str, Basis, int | None]
) -> None:
    """The data type is one that the device supports. On another GPU, figures of the profile `t4` count as emulated."""
    on = machine(profile, ask=lambda: found)
    assert (on.kind, on.compute_dtype, on.basis, on.memory_cap) == expected
    assert on.kind == "cpu" or (found and on.device == found.name)


def test_a_t4_needs_a_gpu() -> None:
    """If the machine has no GPU, the profile `t4` is an error whose remedy is `--profile cpu`."""
    with pytest.raises(UsageError, match="--profile cpu"):
        machine(device_profiles.T4, ask=lambda: None)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, 0), ("0", 0), ("1", 1), ("3, 0", 3), ("GPU-8a56,1", "GPU-8a56"), ("", None), ("-1", None), ("none", None)],
)
def test_the_first_gpu_is_the_one_that_cuda_shows_first(variable: str | None, expected: int | str | None) -> None:
    """The GPU that is used is the first in CUDA_VISIBLE_DEVICES, which can hide GPUs and change their order."""
    assert first_visible(variable) == expected


def test_the_commit_is_that_of_the_package_not_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is that of the package's repository, in any current directory and in a git hook (GIT_DIR)."""
    package = _package(tmp_path / "checkout" / "package")
    commit, other = _committed(package.parent), _committed(_package(tmp_path / "suites" / "code").parent)
    monkeypatch.chdir(tmp_path / "suites")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "suites" / ".git"))
    assert commit != other
    assert commit_of(package) == (commit, False)


def test_a_package_that_git_does_not_track_has_no_commit(tmp_path: Path) -> None:
    """A package installed in a virtual environment inside a repository does not have that repository's commit."""
    _committed(_package(tmp_path / "code").parent)
    assert commit_of(_package(tmp_path / ".venv" / "site-packages" / "package")) == ("", False)


def test_a_package_outside_every_repository_has_no_commit(tmp_path: Path) -> None:
    """A package in a folder that is in no repository has no commit."""
    assert commit_of(_package(tmp_path / "package")) == ("", False)


def test_only_changes_of_the_package_count_as_uncommitted(tmp_path: Path) -> None:
    """Changed files elsewhere in the repository, such as a suite, do not count as changes of the package."""
    package = _package(tmp_path / "package")
    commit = _committed(tmp_path)
    (tmp_path / "suite.yaml").write_text("cases: []\n")
    assert commit_of(package) == (commit, False)
    (package / "__init__.py").write_text("changed = True\n")
    assert commit_of(package) == (commit, True)


def _package(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"folder = {str(folder)!r}\n")
    return folder


def _committed(folder: Path) -> str:
    """Make `folder` a repository with one commit of all its files, and return the commit."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(("git", *who, *words), cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "files")
    return git("rev-parse", "HEAD")
