"""An exporter: one target of `harness export --to KIND`, with its options and the function that makes it.

A new target is one module with an `Exporter` and one row in `exporters.EXPORTERS`; the command line is built from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from harness.core.export import ExportKind
from harness.core.model import ModelRef
from harness.export.shards import Tensors
from harness.export.source import Source
from harness.storage.runs import RunStore

Printer = Callable[[str], None]
"""Prints a line of progress."""


class Mergeable(Tensors, Protocol):
    """The tensors of a merged model, and whether its head was untied from its embedding."""

    @property
    def untied(self) -> bool: ...


class Merger(Protocol):
    """`harness.engine.merging.merge`."""

    def __call__(
        self, model: ModelRef, adapter: Path, *, dtype: str, compute_dtype: str, nf4: bool, saved: Path | None
    ) -> Mergeable: ...


@dataclass(frozen=True)
class EngineFunctions:
    """What an exporter needs of the engine. It is passed in, since this room does not import torch."""

    merge: Merger
    check_adapter: Callable[[ModelRef, Path], None]
    """Raises an EngineError where an adapter does not fit its base."""


@dataclass(frozen=True)
class ExportRequest:
    """What every exporter is given, whatever its own options."""

    run: Path
    """The run's directory as the user named it."""
    store: RunStore
    source: Source
    output: Path | None
    """Where to write the result; None: in the run's directory."""
    engine: EngineFunctions
    tell: Printer

    @property
    def folder(self) -> Path:
        return self.store.root / "exports"


@dataclass(frozen=True)
class Option:
    """How the command line offers a field of an options dataclass."""

    help: str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    is_path: bool = False
    required: bool = False


def option(
    text: str,
    *,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    is_path: bool = False,
    required: bool = False,
) -> dict[str, Option]:
    """Metadata of a dataclass field that is an option with the help `text`; a default of False makes it a flag.

    A value among `choices` is passed on as that member of `choices`, so that an enum stays one.
    """
    return {"option": Option(text, tuple(choices), metavar, is_path, required)}


@dataclass(frozen=True)
class NoOptions:
    """Options of an exporter that has none."""


O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Exporter(Generic[O]):
    """One target of `harness export`."""

    kind: ExportKind
    about: str
    """One line of the command's help."""
    options: type[O]
    """A frozen dataclass whose fields have the metadata `option(...)`."""
    make: Callable[[ExportRequest, O], str]
    """Make the export and return what the command prints: usually the path of the result."""


def options_of(exporter: Exporter[Any]) -> dict[str, tuple[Option, Field[Any]]]:
    """The exporter's options by name, in the order of their fields."""
    return {each.name: (each.metadata["option"], each) for each in fields(exporter.options)}
