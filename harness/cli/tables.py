"""What the commands that look print: a suite, a plan, the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.grid import differing_settings
from harness.grid.forms import NAMED_MODULES
from harness.grid.names import number
from harness.predict import updates
from harness.records import Plan, Role, Settings, Split, Suite
from harness.store import Held


def suite_table(suite: Suite, plans: Sequence[Plan], warnings: Sequence[str] = ()) -> None:
    """How many cases of each role and split, the training rows, the grids, and what its reader should know."""
    console = _console()
    table = _table("role", *(split.value for split in Split))
    for role in Role:
        counts = [sum(case.role is role for case in suite.of(split)) for split in Split]
        if any(counts):
            table.add_row(role.value, *map(str, counts))
    console.print(f"{suite.name}: {_of(len(suite.cases), 'case')}, {_of(len(suite.examples), 'training row')}")
    console.print(table)
    for plan in plans:
        seeds = _of(len(plan.seeds), "seed")
        console.print(f"grid {plan.grid}: {_of(len(plan.variants), 'variant')}, {seeds}")
    for notice in (*suite.notices, *warnings):
        console.print(notice, soft_wrap=True)
    console.print("Nothing is wrong with it.")


def plan_table(suite: Suite, plan: Plan) -> None:
    """One line per variant: its name, the settings that differ, and how many steps its training takes."""
    names = differing_settings(plan)
    table = _table("variant", *(name.replace("_", " ") for name in names), "steps")
    for variant in plan.variants:
        values = (_value(variant.settings, name) for name in names)
        table.add_row(variant.name, *values, str(updates(variant.settings, len(suite.examples))))
    console = _console()
    seeds = ", ".join(map(str, plan.seeds))
    variants, trials = _of(len(plan.variants), "variant"), _of(len(plan.trials), "trial")
    console.print(f"{suite.name}, grid {plan.grid}: {variants}, seeds {seeds}: {trials}")
    console.print(table)


def cache_table(root: Path, held: Sequence[Held]) -> None:
    """What the cache holds."""
    console = _console()
    if not any(part.entries for part in held):
        console.print(f"{root} holds nothing.")
        return
    console.print(f"{root} holds:")
    table = _table("", "of trainings", "size")
    for part in held:
        table.add_row(part.kind, str(part.entries), f"{part.bytes / 1e6:.1f} MB")
    console.print(table)


def _console() -> Console:
    """Names from suites are not markup, and a pipe has no width to wrap at."""
    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, emoji=False, width=200)


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _value(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if isinstance(value, tuple):
        return next((word for word, modules in NAMED_MODULES.items() if modules == value), " ".join(value))
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
