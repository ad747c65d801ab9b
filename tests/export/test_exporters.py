"""Targets of `harness export`: one table, from which the command line is built."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

import click
import pytest

from harness.cli import cli, main
from harness.core.export import ExportKind
from harness.export.protocol import Exporter, options_of
from harness.export.registry import EXPORTERS


def options(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", "--help"]) == 0
    return capsys.readouterr().out


def test_every_kind_has_one_exporter() -> None:
    """The table has one row per export kind."""
    assert [each.kind for each in EXPORTERS] == list(ExportKind)


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda each: str(each.kind))
def test_options_are_fields_of_a_dataclass(exporter: Exporter[Any]) -> None:
    """An exporter without any option given can be asked for, with the defaults of its dataclass."""
    assert is_dataclass(exporter.options)
    assert exporter.options() == exporter.options()


def test_a_shared_option_is_the_same_for_every_target() -> None:
    """The command line has each option once, so targets that share a name share its help, choices and default."""
    found: dict[str, Any] = {}
    for exporter in EXPORTERS:
        for name, (option, field) in options_of(exporter).items():
            assert found.setdefault(name, (option, field.default)) == (option, field.default)


def test_the_help_lists_every_target_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    """What the table holds is what `harness export --help` shows."""
    shown = options(capsys)
    for exporter in EXPORTERS:
        assert f"\n  {exporter.kind.value} " in shown
        assert all("--" + name.replace("_", "-") in shown for name in options_of(exporter))


def test_the_command_takes_the_options_of_before() -> None:
    """No option of `harness export` got lost when its options moved to the exporters."""
    command = cli.commands["export"]
    names = {word for each in command.get_params(click.Context(command)) for word in each.opts}
    assert names == {
        *("run", "variant", "--to", "--seed", "--mode", "--dtype", "--quant", "--llama-cpp"),
        *("--repo", "--what", "--public", "--dry-run", "--output", "--quiet", "-h", "--help"),
    }


def test_a_hub_export_needs_a_repository(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that a target requires is named in a usage error before anything is read."""
    assert main(["export", "nowhere", "any", "--to", "hub"]) == 2
    assert "--to hub needs --repo OWNER/NAME." in capsys.readouterr().err
