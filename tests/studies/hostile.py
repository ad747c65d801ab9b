"""Attacks the commands with hostile files, names, folders and environments, and counts what gets through.

    python -m tests.studies.hostile [--only WORD] [--bound 10] [--output FILE [--again]]

Each attack runs a real command in a scratch folder of its own. It got through if the command ran a program of the
attacker (a file PWNED appears), printed a control character, printed or copied a secret, changed a folder outside,
ended with another exit code than expected, printed a traceback, took longer than the bound, or took more than 10 s of
processors. `harness gate` must never end with 1, which means that something became worse. Exits with 1 if an attack got
through. On a busy machine, use a larger bound: the time of processors does not depend on what else runs.

The attacks are in `tests/support/hostile_*.py`. `--again` keeps the outcomes of the record that did not get through,
and repeats or adds the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core import programs
from tests.support import hostile_first, hostile_inputs, hostile_surroundings
from tests.support.attacks import SECRET, Attack, kept

PROCESSOR_SECONDS = 10.0
"""Bound of the time of processors, which does not depend on what else the machine does."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Outcome:
    """What an attack did. `problems` is empty if it did not get through."""

    place: str
    attack: str
    code: int | None
    seconds: float
    """Time by the clock, and time of processors: on a busy machine, only the second means anything."""
    processor_seconds: float
    problems: tuple[str, ...]
    said: str = ""
    """The first line of the error."""


PLACES = (*hostile_first.PLACES, *hostile_inputs.PLACES, *hostile_surroundings.PLACES)


def attack(one: Attack, folder: Path, bound: float) -> Outcome:
    """Run the command of an attack in a folder, and say what went wrong."""
    kept(folder)
    one.prepare(folder)
    began, code, printed = time.monotonic(), None, ""
    environment = programs.environment({"HF_HUB_OFFLINE": "1", **one.environment})
    environment |= {name: value for name, value in one.environment.items() if name == "PATH"}
    with (folder / ".out").open("wb") as out:
        child = subprocess.Popen(
            [*one.around, *programs.python("-W", "ignore", *one.program, *one.words)],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            code = child.wait(bound)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.monotonic() - began
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    printed = (folder / ".out").read_bytes().decode(errors="replace")
    found = tuple(problems(one, folder, code, used, printed))
    return Outcome(
        one.place, one.name, code, round(seconds, 1), round(used, 1), found, error_in(printed.replace(str(folder), "."))
    )


def error_in(printed: str) -> str:
    """Return the first line of an error message, without control characters."""
    lines = [line for line in printed.splitlines() if line.strip() and not line.startswith(("Usage:", "Try "))]
    found = next((line for line in lines if line.lower().startswith("error")), next(iter(lines), ""))
    return CONTROL.sub("?", found)[:160]


def problems(one: Attack, folder: Path, code: int | None, used: float, printed: str) -> Iterator[str]:
    """Yield what went wrong."""
    if code is None:
        yield "hang"
    elif used > PROCESSOR_SECONDS:
        yield f"{used:.1f} s of processors"
    elif code not in one.expected or (code == 2 and "there is no grid" in printed):
        last = next(iter(reversed(printed.strip().splitlines())), "")
        yield f"exit code {code}: {last[:120]}"
    if "Traceback (most recent call last)" in printed:
        yield "traceback"
    found_files = list(files(folder))
    if any(path.name.startswith("PWNED") for path in found_files):
        yield "a program of the attacker ran"
    if found := CONTROL.search(printed):
        yield f"control character {found[0]!r}"
    if kept(folder).read_text(encoding="utf-8") != SECRET or len(list((folder / "keep").iterdir())) != 1:
        yield "a folder outside was changed"
    if SECRET in printed or any(map(holds_secret, found_files)):
        yield "a secret was printed or copied"
    written = [path for path in found_files if path.suffix in (".md", ".html", ".csv") and path.is_file()]
    texts = map(text_of, written)
    shown = "\n".join([printed if "md" in one.words else "", *texts])
    if one.unwritten and one.unwritten in re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", shown):
        yield f"{one.unwritten!r} was written"


def text_of(page: Path) -> str:
    """Return the text of a page; of a CSV file, each cell on a line of its own."""
    text = page.read_text(encoding="utf-8", errors="replace")
    if page.suffix != ".csv":
        return text
    csv.field_size_limit(len(text))  # a hostile cell may be longer than the usual limit
    return "".join(f"\n{cell}" for row in csv.reader(text.splitlines(keepends=True)) for cell in row)


def files(folder: Path) -> Iterator[Path]:
    """Yield the files outside the folder `keep`. Folders may be deeper than Python's recursion."""
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # the path is too long
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting += [Path(entry.path)] if entry.name != "keep" else []
            else:
                yield Path(entry.path)


def holds_secret(path: Path) -> bool:
    """Whether a file contains the secret."""
    small = not path.is_symlink() and path.is_file() and path.stat().st_size < 10_000_000
    return small and SECRET.encode() in path.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of the name of a place or an attack")
    parser.add_argument("--bound", type=float, default=10, help="seconds for one attack")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--again", action="store_true", help="repeat only what got through by the record --output")
    given = parser.parse_args()
    known = past(given.output) if given.again else {}
    found: list[Outcome] = []
    for one in (each for place in PLACES for each in place()):
        if (one.place, one.name) in known:
            found.append(known[one.place, one.name])
        elif given.only in f"{one.place}: {one.name}":
            found.append(attacked(one, given.bound))
            if given.output:
                done = {(each.place, each.attack) for each in found}
                write(given.output, [*found, *(each for name, each in known.items() if name not in done)], given.bound)
    print(counts(found, given.bound))
    return any(each.problems for each in found)


def write(output: Path, found: Sequence[Outcome], bound: float) -> None:
    report = counts(found, bound) | {"outcomes": [asdict(each) for each in found]}
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def past(record: Path) -> dict[tuple[str, str], Outcome]:
    """Return the outcomes of a record that did not get through, by place and name."""
    outcomes = [Outcome(**each) for each in json.loads(record.read_text(encoding="utf-8"))["outcomes"]]
    return {(each.place, each.attack): each for each in outcomes if not each.problems}


def attacked(one: Attack, bound: float) -> Outcome:
    """Attack in a new folder, and print the outcome."""
    folder = tempfile.mkdtemp(prefix="hostile-")
    try:
        found = attack(one, Path(folder), bound)
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)  # rmtree of Python 3.11 fails on deep folders
    words = "; ".join(found.problems) or found.said
    times = f"{found.seconds:5.1f} s {found.processor_seconds:5.1f} s"
    print(f"{found.place:15} {found.attack:40} {found.code!s:>4} {times}  {words[:110]}", flush=True)
    return found


def counts(found: Sequence[Outcome], bound: float) -> dict[str, Any]:
    """Return how many attacks there were, and how many got through."""
    text = " ".join(problem for each in found for problem in each.problems)
    return {
        "command": f"python -m tests.studies.hostile --bound {bound:g} --output FILE",
        "attacks": len(found),
        "by_place": dict(Counter(each.place for each in found)),
        "through": sum(bool(each.problems) for each in found),
        "tracebacks": text.count("traceback"),
        "hangs": text.count("hang"),
        "bound_seconds": bound,
        "bound_processor_seconds": PROCESSOR_SECONDS,
        "longest_processor_seconds": max((each.processor_seconds for each in found), default=0.0),
    }


if __name__ == "__main__":
    sys.exit(main())
