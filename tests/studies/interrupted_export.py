"""Kills a merge at random moments until it completes, and compares its files with those of an undisturbed merge.

    python -m tests.studies.interrupted_export --kills 10 --seed 1 [--output FILE]

Merges a random Llama of 0.2 billion parameters with a random adapter into files of 20 MB. Each kill is a SIGKILL. Exits
with 1 if a byte differs, or if the folder of the result existed before the result was complete.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.core.hashing import digest, file_digest
from harness.export import shards

LIMIT = 20_000_000


def prepare(folder: Path) -> None:
    """Make the base and an adapter for it."""
    from harness.core.settings import Quantization
    from tests.studies.merges import adapter_of, loaded, model_of

    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
    ref = model_of("llama", folder / "base", shards="100MB", **sizes)
    adapter_of(loaded(ref, Quantization.NF4), folder / "adapter", 0.03)


def merge_into(folder: Path, made: Path) -> None:
    """Merge as `harness export` does, into a temporary folder that is renamed when the merge is complete."""
    from harness.engine.merging import merge
    from harness.export.output_folders import staging
    from harness.models.resolving import resolve

    tensors = merge(
        resolve(str(folder / "base")), folder / "adapter", dtype="float16", compute_dtype="float32", nf4=True
    )
    staging(made).mkdir(exist_ok=True)
    print("begun", flush=True)
    list(shards.write(staging(made), tensors, shards.split(tensors.specs, LIMIT), digest("inputs")))
    staging(made).rename(made)


def start(folder: Path, made: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.studies.interrupted_export",
        "--merge",
        str(folder),
        "--into",
        str(made),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if process.stdout:
        process.stdout.readline()
    return process


def files(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.glob("model*"))}


def rounds(folder: Path, kills: int, rng: random.Random) -> dict[str, object]:
    prepare(folder)
    process, began = start(folder, folder / "alone"), time.monotonic()
    process.wait()
    longest, expected = time.monotonic() - began, files(folder / "alone")
    done, number, moments, different, early = 0, 0, list[float](), 0, 0
    while done < kills:
        number += 1
        made = folder / f"disturbed-{number}"
        while not made.exists():
            process, moment = start(folder, made), rng.uniform(0, longest / 2)
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                early += made.exists() and files(made) != expected
                process.kill()
                process.wait()
                done += 1
                moments.append(round(moment, 2))
                print(f"killed after {moment:.2f} s", flush=True)
        different += files(made) != expected
    return {
        "files": len(expected),
        "undisturbed_seconds": round(longest, 2),
        "kills": moments,
        "merges": number,
        "different": different,
        "named_before_whole": early,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--merge", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if given.merge:
        merge_into(given.merge, given.into)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = rounds(Path(folder), given.kills, random.Random(given.seed))
    found = {"command": f"python -m tests.studies.interrupted_export --kills {given.kills} --seed {given.seed}"} | found
    print(json.dumps(found, indent=1))
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if found["different"] or found["named_before_whole"] else 0


if __name__ == "__main__":
    sys.exit(main())
