"""Exports to a disk that becomes full while they write, and repeats each export once there is room again.

    python -m tests.studies.full_disk [--llama-cpp DIR] [--output FILE]

Each export begins with enough room. As soon as it has made its temporary folder, it is stopped, the disk is filled
except for some bytes, and the export continues. It must end with exit code 2 and one error that names a remedy, and
leave nothing under its final name. With room again, the same command must succeed, with the bytes of an undisturbed
export.
Needs root, to mount a small file system. Exits with 1 if an export does otherwise.

The targets are a merged model and, if llama.cpp's converter is installed, GGUF files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core.errors import ExportError
from harness.core.hashing import file_digest
from harness.export.llama_cpp import converter
from tests.support.interruptions import Command
from tests.support.preloaded import preload
from tests.support.small_disks import Disk, small_disk
from tests.support.trained_run import small_run

SIZE = 1_200_000_000
"""Size of the file system. An export asks for 1 GB of room beyond its files before it begins."""
ROOM = (0.0, 0.3, 0.95, 0.999)
"""Free bytes that an export finds, as a share of the bytes that it writes."""
NAME = "lr-0.01-seed0"


@dataclass(frozen=True)
class Target:
    """An export: its options, and the name of its folder."""

    name: str
    options: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class Outcome:
    """What one export did on a disk that became full."""

    target: str
    share: float
    """Room that it found, as a share of the bytes that it writes."""
    code: int
    error: str
    named: bool
    """Whether the folder of the result existed afterwards."""
    again: int
    """Exit code of the same command once there was room."""
    same: bool
    """Whether the files were then those of an undisturbed export."""

    @property
    def sound(self) -> bool:
        good = self.code == 2 and self.error.count("Error:") == 1 and "ree some space" in self.error
        enough = self.code == 0 and self.same  # the rest fitted
        return enough or (good and not self.named and self.again == 0 and self.same)


def targets(llama_cpp: Path | None) -> Iterator[Target]:
    yield Target("merged", ("--to", "merged"), f"{NAME}-nf4-exact-float16")
    try:
        converter(llama_cpp)
    except ExportError as error:
        print(f"no GGUF: {error}")
        return
    place = ("--llama-cpp", str(llama_cpp.resolve())) if llama_cpp else ()
    yield Target("gguf", ("--to", "gguf", "--quant", "q8_0", *place), f"{NAME}-gguf-q8_0")


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.glob("*"))}


def export_to_full(command: Command, disk: Disk, staging: Path, left: int) -> tuple[int, str]:
    """Run an export and fill the disk once its temporary folder exists. Return the exit code and the error."""
    running = command.start()
    while running.poll() is None and not staging.exists():
        time.sleep(0.001)
    os.killpg(running.pid, signal.SIGSTOP)
    disk.fill(left)
    os.killpg(running.pid, signal.SIGCONT)
    code = running.wait()
    return code, running.printed()


def outcomes(target: Target, run: Path, disk: Disk) -> Iterator[Outcome]:
    """Export with each amount of room."""
    folder = run / "exports"
    final, staging = folder / target.folder, folder / f".partial-{target.folder}"
    command = Command(("export", str(run), "lr", "--quiet", *target.options), disk.folder)
    command.complete()
    expected, size = files_in(final), sum(path.stat().st_size for path in final.glob("*"))
    for share in ROOM:
        shutil.rmtree(final)
        shutil.rmtree(staging, ignore_errors=True)
        code, error = export_to_full(command, disk, staging, int(size * share))
        named = final.exists() and code != 0
        disk.empty()
        running = command.start()
        again = running.wait()
        error = error.replace(str(disk.folder), "DISK")
        yield Outcome(target.name, share, code, error, named, again, files_in(final) == expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, help="folder of llama.cpp's converter")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found: list[Outcome] = []
    preload()
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", SIZE) as disk:
        store = small_run(disk.folder)
        for target in targets(given.llama_cpp):
            for each in outcomes(target, store.root, disk):
                found.append(each)
                print("ok " if each.sound else "BAD", json.dumps(asdict(each)), flush=True)
    report = {
        "command": "python -m tests.studies.full_disk --output FILE",
        "exports": len(found),
        "ended_with_2": sum(each.code == 2 for each in found),
        "bad": sum(not each.sound for each in found),
        "outcomes": [asdict(each) for each in found],
    }
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(bool(report["bad"]))


if __name__ == "__main__":
    sys.exit(main())
