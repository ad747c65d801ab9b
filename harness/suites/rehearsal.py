"""The prompts of rehearsal: a pool for all suites, or a suite's own `rehearsal.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.analysis.contamination import prompts_around, prompts_near
from harness.core.errors import GridError, Place, SuiteError
from harness.core.rehearsal import Rehearsal, rehearsing
from harness.core.settings import Plan, Variant
from harness.core.suite import Suite
from harness.core.yaml import fit, raise_all, read_text
from harness.suites.case_files import inside, json_rows
from harness.suites.forms import RehearsalForm

FILE = "rehearsal.jsonl"
POOL = Path(__file__).with_name(FILE)
MOST = 2000
"""The largest number of prompts in a pool. The base model answers all of them before anything is trained."""
LONGEST = 10_000
"""The largest number of characters of a prompt."""
MOST_TEXT = 1_000_000
"""The largest number of characters of all prompts, which are compared with all cases and training rows."""


@dataclass(frozen=True)
class Pool:
    """Prompts for rehearsal, each of them once, and the file that holds them."""

    prompts: tuple[str, ...]
    file: Path


def load_pool(folder: Path) -> Pool:
    """Return the prompts in the `rehearsal.jsonl` of a suite's folder; if there is none, those of the harness.

    Raises:
        SuiteError: the file has mistakes.
    """
    own = folder / FILE
    file = own if own.exists() or own.is_symlink() else POOL
    try:
        return Pool(parse_pool(read_text(inside(file.parent, file.name), file.name, SuiteError), file.name), file)
    except FileNotFoundError:
        remedy = "Replace it by a file with one prompt per line, or remove it to use the prompts of the harness."
        raise SuiteError("is not a file", remedy=remedy, place=Place(str(file))) from None


def parse_pool(text: str, file: str) -> tuple[str, ...]:
    """Parse prompts, one JSON object per line: `{"prompt": "..."}`. A prompt that is given twice is returned once."""
    prompts, problems = [], []
    for row in json_rows(file, text):
        try:
            prompts.append(fit(RehearsalForm, row).prompt.strip())
        except SuiteError as problem:
            problems.append(problem)
    raise_all(problems)
    if not prompts:
        raise SuiteError("holds no prompts", remedy='Write one prompt per line: {"prompt": "..."}.', place=Place(file))
    if len(prompts) > MOST:
        remedy = "Keep a part of them: the base model answers all of them before anything is trained."
        raise SuiteError(f"holds {len(prompts):,} prompts, more than {MOST:,}", remedy=remedy, place=Place(file))
    if (long := max(map(len, prompts))) > LONGEST:
        remedy = f"Shorten or remove prompts of more than {LONGEST:,} characters."
        raise SuiteError(f"holds a prompt of {long:,} characters", remedy=remedy, place=Place(file))
    if (whole := sum(map(len, prompts))) > MOST_TEXT:
        remedy = f"Keep prompts of at most {MOST_TEXT:,} characters in all."
        raise SuiteError(f"holds prompts of {whole:,} characters in all", remedy=remedy, place=Place(file))
    return tuple(dict.fromkeys(prompts))


def rehearsal_of(suite: Suite, plan: Plan) -> Rehearsal | None:
    """Return the rehearsal prompts of a run; None if no variant has rehearsal.

    Prompts of the pool that are in or near a case or a training row, or contain its question, are left out. Near a
    case, the rows would teach to the test. Near a training row, the base model's answer would contradict it.

    Raises:
        SuiteError: the suite's `rehearsal.jsonl` has mistakes.
        GridError: a variant has more rehearsal rows than there are prompts.
    """
    if not rehearsing(plan):
        return None
    found = usable_prompts(suite)
    for variant in plan.variants:
        if variant.settings.rehearsal > len(found.prompts):
            what = f"prompts ({found.near} others are in or near a case or training row)" if found.near else "prompts"
            raise too_few(plan, variant, len(found.prompts), what)
    return found


def usable_prompts(suite: Suite) -> Rehearsal:
    """Return the prompts of the suite's pool that may be asked, and the number of those that are left out.

    Raises:
        SuiteError: the suite's `rehearsal.jsonl` has mistakes.
    """
    pool = load_pool(Path(suite.folder))
    near = prompts_near(suite, pool.prompts) | prompts_around(suite, pool.prompts)
    return Rehearsal(tuple(prompt for prompt in pool.prompts if prompt not in near), len(near))


def too_few(plan: Plan, variant: Variant, most: int, what: str) -> GridError:
    """Return the error for a variant with more rehearsal than the `most` prompts or rows that `what` describes."""
    lower = f"Set rehearsal to at most {most}" if most else "Remove rehearsal"
    remedy = (
        f"{lower} in the grid, or put a {FILE} with more prompts, which have short answers, into the suite's folder."
    )
    message = f"{variant.name} has rehearsal {variant.settings.rehearsal}, and there are only {most} {what}"
    return GridError(message, remedy=remedy, place=Place(f"grids/{plan.grid}.yaml"))
