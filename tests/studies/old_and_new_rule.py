"""Judges the variants of a finished run by the old rule and by the new one.

    python -m tests.studies.old_and_new_rule RUN [--output FILE.json]

It prints a Markdown table. The old rule compared a variant with the base model on the `retain` and `avoid` cases that
the base model passes; the new one, which is the run's own, takes the net loss on all of them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.analysis.losses import GUARDED, guarded_pair
from harness.analysis.score_table import score_tables
from harness.core.quantities import interval, points
from harness.core.run_results import Results
from harness.core.suite import Split
from harness.runner.rescoring import assemble
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from tests.studies.old_rule import old_rule


def study(results: Results) -> dict[str, Any]:
    """Return both judgements of each variant of a run."""
    suite, facts = results.run.suite, results.run.provenance
    tables = score_tables(results.samples, suite.reducer)
    guarded = [case for case in suite.of(Split.MAIN) if case.role in GUARDED]
    found = {}
    for variant in results.variants:
        if variant.name not in tables or variant.loss is None:
            continue
        both = guarded_pair(guarded, tables[results.base_of(variant).name], tables[variant.name])
        if both:
            old = old_rule(both.before, both.after, both.groups, suite.margin)
            found[variant.name] = {"old": old, "new": asdict(variant.loss)}
    first = next((loss for variant in results.variants if (loss := variant.loss)), None)
    if first is None:
        raise SystemExit("the run has no variant that answered retain or avoid cases; finish the run first")
    return {
        "run": facts.command, "model": results.run.model.name, "device": facts.machine.device,
        "versions": facts.versions, "margin": suite.margin, "cases": first.cases, "groups": first.clusters,
        "base_passes": first.base_passed, "seeds": first.seeds, "variants": found,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Return the judgements as a Markdown table, the smallest net loss first."""
    passes = f"{found['cases']} `retain` and `avoid` cases in {found['groups']} groups, of which the base model passes"
    seeds = f"{found['base_passes']:g}; seeds: {found['seeds']}; margin: {found['margin']:g} points."
    lines = [
        f"{found['model']}: {passes} {seeds} Losses are in points of what it passes, with one-sided 95% bounds.",
        "",
        "| Variant | Broken | Fixed | Old rule: lost (below) | Old verdict | Net loss (bounds) | Verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(found["variants"].items(), key=lambda item: item[1]["new"]["points"] or 0.0):
        old, new = row["old"], row["new"]
        before = f"{_figure(old['lost'])} ({_figure(old['below'])})"
        lines.append(
            f"| {name} | {points(new['broken'])} | {points(new['fixed'])} | {before} "
            f"| {old['verdict']} | {_figure(new['points'])} ({interval(new['lower'], new['upper'])}) "
            f"| {new['verdict']} |"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else points(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, metavar="FILE")
    given = parser.parse_args()
    store = RunStore(given.run)
    found = study(assemble(store.manifest(), store.records()))
    print(table(found))
    if given.output:
        command = f"python -m tests.studies.old_and_new_rule RUN --output {given.output}"
        write_text(given.output, json.dumps({"command": command, **found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
