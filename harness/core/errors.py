"""The exceptions that the harness raises for errors that a user can fix.

HarnessError                 exit code 2: what was wrong, where, and what to do
├── UsageError               the arguments of a command do not fit together
├── SuiteError               a mistake in a suite, its training rows or its cases, with file, line and column
├── GridError                a mistake in a grid, with file, line and column
├── ModelError               the base model is missing, gated, or not a model that can be trained
├── StoreError               a run, a cache entry or a baseline cannot be read or written
│   ├── RunInUseError        another process is using the run directory or the cache
│   ├── NewerFormatError     a newer harness wrote the file
│   └── UnreadableFileError  the system refuses to read the file, which may be intact
├── EngineError              the engine cannot train, merge or answer with what it was given
└── ExportError              exporting failed: llama.cpp, the Hub or a notebook reported an error

Any other exception that reaches `main` is a bug: exit code 70, and its traceback is written to a file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place in a file: its path and, where known, line and column, counted from 1."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


class HarnessError(Exception):
    """An error that the user can fix: `message` says what is wrong, `remedy` what to do, and `place` where."""

    def __init__(self, message: str, *, remedy: str = "", place: Place | None = None) -> None:
        self.message, self.remedy, self.place = message, remedy, place
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message}" + (f"\n{self.remedy}" if self.remedy else "")


class UsageError(HarnessError):
    """The arguments of a command do not fit together."""


class SuiteError(HarnessError):
    """A mistake in a suite, its training rows or its cases."""


class GridError(HarnessError):
    """A mistake in a grid."""


class ModelError(HarnessError):
    """The base model is missing, gated, or not a model that can be trained."""


class StoreError(HarnessError):
    """A run, a cache entry or a baseline cannot be read or written."""


class RunInUseError(StoreError):
    """Another process is using the run directory or the cache."""


class NewerFormatError(StoreError):
    """A newer version of the harness wrote the file."""


class UnreadableFileError(StoreError):
    """The system refuses to read the file, such as without permission. It may be intact: do not delete it."""


class EngineError(HarnessError):
    """The engine cannot train, merge or answer with what it was given."""


class ExportError(HarnessError):
    """Exporting failed: llama.cpp, the Hub or a notebook reported an error."""
