"""Tests of the list of export targets, from which the options of `harness export` are made."""

from __future__ import annotations

import shutil
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from harness.cli import cli, main
from harness.core.export import ExportKind
from harness.export.protocol import Exporter, options_of
from harness.export.registry import EXPORTERS
from harness.storage.runs import RunStore
from tests.support.trained_run import inside


def options(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", "--help"]) == 0
    return capsys.readouterr().out


def test_every_kind_has_one_exporter() -> None:
    """Every kind of export has exactly one exporter."""
    assert [each.kind for each in EXPORTERS] == list(ExportKind)


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda each: str(each.kind))
def test_options_are_fields_of_a_dataclass(exporter: Exporter[Any]) -> None:
    """The options of every exporter are a dataclass in which every field has a default."""
    assert is_dataclass(exporter.options)
    assert exporter.options() == exporter.options()


def test_a_shared_option_is_the_same_for_every_target() -> None:
    """If several targets have an option of the same name, its help, choices and default are the same for all."""
    found: dict[str, Any] = {}
    for exporter in EXPORTERS:
        for name, (option, field) in options_of(exporter).items():
            assert found.setdefault(name, (option, field.default)) == (option, field.default)


def test_the_help_lists_every_target_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness export --help` shows every target and all options of every target."""
    shown = options(capsys)
    for exporter in EXPORTERS:
        assert f"\n  {exporter.kind.value} " in shown
        assert all("--" + name.replace("_", "-") in shown for name in options_of(exporter))


def test_the_command_has_all_its_options() -> None:
    """`harness export` has exactly the expected arguments and options."""
    command = cli.commands["export"]
    names = {word for each in command.get_params(click.Context(command)) for word in each.opts}
    assert names == {
        *("run", "variants", "--to", "--seed", "--mode", "--dtype", "--quant", "--llama-cpp"),
        *("--repo", "--what", "--public", "--dry-run", "--base-only", "--lora", "--output", "--quiet", "-h", "--help"),
    }


@pytest.mark.parametrize("kind", ["merged", "gguf", "gguf-lora", "ollama"])
def test_dora_is_refused_by_its_variant_before_anything_is_exported(
    kind: str, trained_run: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variant with DoRA is refused by name, with the target that takes it, before others are exported."""
    without = shutil.ignore_patterns("exports")  # those of other tests of the same run
    run = RunStore(Path(shutil.copytree(trained_run.root, tmp_path / "run", ignore=without)))
    found = run.manifest()
    first = found.plan.variants[0]
    dora = replace(first, settings=replace(first.settings, use_dora=True))
    run.write_manifest(replace(found, plan=replace(found.plan, variants=(dora,))))
    with inside(trained_run.root.parents[2]):
        assert main(["export", str(run.root), first.name, "--to", kind]) == 2
    assert f"{first.name} is trained with DoRA" in (told := capsys.readouterr().err)
    assert "--to adapter" in told
    assert not (run.root / "exports").exists()


def test_a_hub_export_needs_a_repository(capsys: pytest.CaptureFixture[str]) -> None:
    """If `--repo` is missing with `--to hub`, an error says so before the run is read."""
    assert main(["export", "nowhere", "any", "--to", "hub"]) == 2
    assert "--to hub needs --repo OWNER/NAME." in capsys.readouterr().err
