"""Judges the variants of a finished run by the old rule and by the new one.

    python -m tests.studies.old_and_new_rule RUN [--output FILE.json]

It prints a Markdown table. The old rule compared a variant with the base model on the `retain` and `avoid` cases that
the base model passes; the new one takes the net loss on all of them. As in a run, the variance between seeds is pooled
over variants with equally many seeds if there are at least four.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis.net_loss import SeedVariance, pooled, seed_variance
from harness.analysis.score_table import Pair, pair, score_tables
from harness.core.names import BASE
from harness.core.run_results import Results
from harness.core.suite import Role, Split
from harness.runner.rescoring import assemble
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from tests.studies.old_rule import new_rule, old_rule

GUARDED = (Role.RETAIN, Role.AVOID)
LEAST_VARIANTS = 4


def study(results: Results) -> dict[str, Any]:
    """Return both judgements of each variant of a run."""
    suite = results.run.suite
    tables = score_tables(results.samples, suite.reducer)
    cases = [case for case in suite.of(Split.MAIN) if case.role in GUARDED]
    base = tables[BASE].on([case.id for case in cases])
    found = {}
    for variant in results.variants:
        own = tables[variant.name]
        both = pair(cases, base, own.on(base.cells).failing(base.cells, own.seeds)) if variant.name in tables else None
        if both:
            found[variant.name] = both
    first = next(iter(found.values()))
    facts = results.run.provenance
    return {
        "run": facts.command, "model": results.run.model.name, "device": facts.machine.device,
        "versions": facts.versions, "margin": suite.margin, "cases": len(first.groups),
        "groups": len(dict.fromkeys(name or n for n, name in enumerate(first.groups))),
        "base_passes": float(first.before.mean(axis=0).sum()), "seeds": len(first.after),
        "variants": {name: _judged(both, suite.margin, list(found.values())) for name, both in found.items()},
    }  # fmt: skip


def _judged(found: Pair, margin: float, every: Sequence[Pair]) -> dict[str, Any]:
    was, now = found.before.mean(axis=0), found.after.mean(axis=0)
    return {
        "passes": round(float(now.sum()), 1),
        "broken": round(float((was * (1 - now)).sum()), 1),
        "fixed": round(float(((1 - was) * now).sum()), 1),
        "old": old_rule(found.before, found.after, found.groups, margin),
        "new": new_rule(found.before, found.after, found.groups, margin, _seeds(found, every)),
    }


def _seeds(found: Pair, every: Sequence[Pair]) -> SeedVariance:
    alike = [seed_variance(each.after) for each in every if len(each.after) == len(found.after)]
    return pooled(alike) if len(found.after) > 1 and len(alike) >= LEAST_VARIANTS else seed_variance(found.after)


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
    for name, row in sorted(found["variants"].items(), key=lambda item: item[1]["new"]["net"] or 0.0):
        old, new = row["old"], row["new"]
        lines.append(
            f"| {name} | {row['broken']:g} | {row['fixed']:g} | {_figure(old['lost'])} ({_figure(old['below'])}) "
            f"| {old['verdict']} | {_figure(new['net'])} ({_figure(new['low'])} to {_figure(new['high'])}) "
            f"| {new['verdict']} |"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


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
