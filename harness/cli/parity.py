"""`harness parity`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import ALLOW_CODE, LLAMA_CPP, QUIET, RUN, TRAINING_SEED, VARIANT, progress_printer


@click.command()
@RUN
@VARIANT
@TRAINING_SEED
@LLAMA_CPP
@ALLOW_CODE
@QUIET
def parity(run: Path, variant: str, seed: int | None, llama_cpp: Path | None, allow_code: bool, quiet: bool) -> None:
    """Compare answers before and after merging and conversion.

    RUN is the directory of a run. VARIANT is the name of a variant, or any part of the name that identifies
    it. The model answers the suite's prompts in each stage of an export: NF4 base with adapter, merged,
    reloaded from disk, and GGUF in f16, q8_0 and q4_k_m; in f16 and q4_k_m, also the adapter's GGUF file over
    the base model's. The command lists the assertions whose verdict
    changes, and the stage at which it does. The result is saved in RUN/parity and shown in the report.
    """
    from harness.cli.parity_check import check_parity
    from harness.cli.tables import parity_table
    from harness.export.source import find
    from harness.report import report_files
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    store, cache = find_run(run), Cache(CACHE)
    with store.locked(), cache.in_use(store.root):
        source = find(store, variant, seed, cache)
        parity_table(check_parity(store, source, llama_cpp, progress_printer(quiet), allow_code=allow_code))
        if store.has_results:
            report_files.rewrite(store)
