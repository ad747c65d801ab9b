"""`harness export`. Its targets and their options are defined by `harness.export.registry`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from harness.cli.options import PATH, QUIET, RUN, TRAINING_SEED, progress_printer
from harness.cli.output import echo
from harness.core.wording import listed

if TYPE_CHECKING:
    from harness.export.protocol import Exporter, Option


class _ExportCommand(click.Command):
    """Adds the options of the exporters only when this command is parsed: `harness --help` imports no exporter."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        arguments = [each for each in own if isinstance(each, click.Argument)]
        options = [each for each in own if not isinstance(each, click.Argument)]
        return [*arguments, _kind(), *_target_options(), *options]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_dl([(each.kind.value, each.about) for each in _exporters()])


def _exporters() -> tuple[Exporter[Any], ...]:
    from harness.export.registry import EXPORTERS

    return EXPORTERS


def _kind() -> click.Option:
    kinds = click.Choice([each.kind.value for each in _exporters()])
    return click.Option(["--to", "kind"], type=kinds, required=True, help="Format or destination; see above.")


def _target_options() -> Iterator[click.Option]:
    """The options of all targets; an option that several targets share appears once."""
    from harness.export.protocol import options_of

    names = {name: each for exporter in _exporters() for name, each in options_of(exporter).items()}
    for name, (option, field) in names.items():
        yield _click_option(name, option, field.default)


def _click_option(name: str, option: Option, default: Any) -> click.Option:
    words = [_flag(name), name]
    if default is False:
        return click.Option(words, is_flag=True, help=option.help)
    kind = PATH if option.is_path else click.Choice(list(map(str, option.choices))) if option.choices else click.STRING
    shown = None if default is None else str(default)
    return click.Option(
        words, type=kind, default=shown, show_default=bool(shown), metavar=option.metavar, help=option.help
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@click.command(cls=_ExportCommand)
@RUN
@click.argument("variants", metavar="VARIANT...", nargs=-1, required=True)
@TRAINING_SEED
@click.option(
    "--output", type=PATH, metavar="DIR", help="Directory for the result (default: a new one in RUN/exports)."
)
@QUIET
def export(
    run: Path, variants: tuple[str, ...], kind: str, seed: int | None, output: Path | None, quiet: bool, **given: Any
) -> None:
    """Export a variant: adapter, merged model, GGUF, Hub ...

    RUN is the directory of a run. VARIANT is the name of a variant, or any part of the name that identifies
    it; several are exported one after the other. An export needs no GPU. If it is interrupted, run the same
    command again to continue.
    """
    from harness.engine.log_filters import hide_library_messages
    from harness.engine.merging import check_adapter, merge
    from harness.export.protocol import EngineFunctions, ExportRequest
    from harness.export.source import find
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    exporter = next(each for each in _exporters() if each.kind.value == kind)
    _check_options(kind)
    options = _options(exporter, given)
    hide_library_messages()
    store, cache = find_run(run), Cache(CACHE)
    with store.locked(), cache.in_use(store.root):
        sources = [find(store, variant, seed, cache) for variant in variants]
        engine = EngineFunctions(merge, check_adapter)
        for source in sources:
            exporter.check(source, options)
        for source in sources:
            echo(exporter.make(ExportRequest(run, store, source, output, engine, progress_printer(quiet)), options))


def _check_options(kind: str) -> None:
    """Refuse options that this target does not use.

    Raises:
        click.UsageError: such an option was given.
    """
    from harness.export.protocol import options_of

    source = click.get_current_context().get_parameter_source
    kinds: dict[str, list[str]] = {}
    for exporter in _exporters():
        for name in options_of(exporter):
            kinds.setdefault(name, []).append(exporter.kind.value)
    for name, own in kinds.items():
        if kind not in own and source(name) is ParameterSource.COMMANDLINE:
            message = f"{_flag(name)} changes nothing with --to {kind}. It is for --to {listed(own)}."
            raise click.UsageError(message)


def _options(exporter: Exporter[Any], given: dict[str, Any]) -> Any:
    """Build the exporter's options dataclass from the values that click parsed.

    Raises:
        click.UsageError: a required option is missing.
    """
    from harness.export.protocol import options_of

    values = {}
    for name, (option, _) in options_of(exporter).items():
        if option.required and not given[name]:
            raise click.UsageError(f"--to {exporter.kind.value} needs {_flag(name)} {option.metavar}.")
        members = {str(each): each for each in option.choices}
        values[name] = members.get(given[name], given[name])
    return exporter.options(**values)
