"""The protocol of an export target: its name, its options, and the function that writes the export.

To add a target, write one module in `harness/export/targets/` that defines an `Exporter` with its own options
dataclass, and add a row to `harness.export.registry.EXPORTERS` and a member to `harness.core.export.ExportKind`. The
command line, its help and its checks of options follow from the registry.
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
"""A function that prints one line of progress."""


class Mergeable(Tensors, Protocol):
    """The tensors of a merged model."""

    @property
    def untied(self) -> bool:
        """Whether the output head no longer shares its weights with the embedding."""
        ...


class Merger(Protocol):
    """The signature of `harness.engine.merging.merge`."""

    def __call__(
        self, model: ModelRef, adapter: Path | None, *, dtype: str, compute_dtype: str, nf4: bool, saved: Path | None
    ) -> Mergeable: ...


@dataclass(frozen=True)
class EngineFunctions:
    """Functions of the engine that exporters call. They are passed in because this package does not import torch."""

    merge: Merger
    check_adapter: Callable[[ModelRef, Path], None]
    """Raises an EngineError if the adapter does not fit the base model."""


@dataclass(frozen=True)
class ExportRequest:
    """What every exporter receives in addition to its own options."""

    run: Path
    """The run's directory, spelled as on the command line."""
    store: RunStore
    source: Source
    output: Path | None
    """Directory for the result; None: a new directory in `folder`."""
    engine: EngineFunctions
    show_progress: Printer

    @property
    def folder(self) -> Path:
        """The run's folder of exports."""
        return self.store.root / "exports"


@dataclass(frozen=True)
class Option:
    """The command-line option for a field of an options dataclass."""

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
    """Metadata for a dataclass field that becomes a command-line option with the help text `text`.

    A field with the default False becomes a flag. If `choices` are members of an enum, the field gets one of them.
    """
    return {"option": Option(text, tuple(choices), metavar, is_path, required)}


@dataclass(frozen=True)
class NoOptions:
    """The options dataclass of an exporter without options."""


O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Exporter(Generic[O]):
    """One target of `harness export`. `O` is the type of its options dataclass."""

    kind: ExportKind
    about: str
    """Description of the target in `harness export --help`."""
    options: type[O]
    """A frozen dataclass; each field has `metadata=option(...)`."""
    make: Callable[[ExportRequest, O], str]
    """Write the export and return the text that the command prints, usually the path of the result."""
    check: Callable[[Source, O], None] = lambda *_: None
    """Refuse a source that this target cannot hold, before the first of several is exported."""


def options_of(exporter: Exporter[Any]) -> dict[str, tuple[Option, Field[Any]]]:
    """Option name to its command-line option and dataclass field, in the order of the fields."""
    return {each.name: (each.metadata["option"], each) for each in fields(exporter.options)}
