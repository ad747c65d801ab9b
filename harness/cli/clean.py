"""`harness clean`."""

from __future__ import annotations

import click

from harness.cli.output import echo


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def clean(yes: bool) -> None:
    """Show the contents of the cache, and delete them.

    Runs and reports are kept. If a later run needs a deleted training, it trains again.
    """
    from harness.cli.tables import cache_table
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE

    cache = Cache(CACHE)
    held = cache.held()
    cache_table(cache.root, held)
    if not any(part.bytes for part in held):
        return
    if yes or click.confirm("Delete it?"):
        cache.clear()
        echo("Deleted.")
