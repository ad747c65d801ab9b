"""`harness schema`."""

from __future__ import annotations

import click

from harness.cli.output import echo


@click.command()
@click.argument("kind", type=click.Choice(["suite", "grid"]), default="suite")
def schema(kind: str) -> None:
    """Print the JSON Schema of suite or grid files, for editors.

    Save the output as FILE, and write `# yaml-language-server: $schema=FILE` in the first line of a suite or
    grid file. Editors then complete and check its keys.
    """
    from harness.suites.json_schema import schema_texts

    echo(schema_texts()[f"{kind}.schema.json"], nl=False)
