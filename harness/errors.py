"""Every error the harness raises on purpose.

HarnessError                 exit 2: what was wrong, where, and what to do
├── UsageError               a command's words do not fit together
├── SuiteError               a suite, its training rows or its cases, with file, line and column
├── GridError                a grid, likewise
├── ModelError               the base model is missing, gated, or not a model that can be trained
├── StoreError               a run, a cache entry or a baseline that cannot be read or written
│   ├── RunInUseError        another process works in that run directory
│   └── NewerFormatError     written by a newer harness
├── EngineError              training or answering broke one of the engine's guards
└── ExportError              llama.cpp, the Hub or a notebook refused what a run would leave the harness as

Anything else that reaches the top is a bug and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where in a file: 1-based line and column, as editors count them."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


class HarnessError(Exception):
    """A mistake that its reader can mend: `message` says what is wrong, `remedy` what to do, `place` where."""

    def __init__(self, message: str, *, remedy: str = "", place: Place | None = None) -> None:
        self.message, self.remedy, self.place = message, remedy, place
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message}" + (f"\n{self.remedy}" if self.remedy else "")


class UsageError(HarnessError):
    pass


class SuiteError(HarnessError):
    pass


class GridError(HarnessError):
    pass


class ModelError(HarnessError):
    pass


class StoreError(HarnessError):
    pass


class RunInUseError(StoreError):
    pass


class NewerFormatError(StoreError):
    pass


class EngineError(HarnessError):
    pass


class ExportError(HarnessError):
    pass
