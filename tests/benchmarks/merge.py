"""Measures memory and time of an exact merge on a CPU, and of reading and writing the same number of bytes.

    python -m tests.benchmarks.merge [--model shape:tinyllama-1.1b] [--folder DIR] [--output FILE]

The base has random weights in the model's shape, in NF4 and in several files, as a run saves a base; the adapter has
rank 16 on all linear layers. `shape:llama-2-7b` needs 32 GB of disk in DIR, and some minutes of quantising before the
measurement. Each phase is a process of its own, whose anonymous memory (which excludes the page cache) is read from
/proc every 20 ms. Prints its figures as JSON and asserts nothing, because machines differ. FILE keeps the figures of
other models.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.core.units import DeviceKind
from harness.engine.log_filters import hide_kernel_advice
from harness.engine.merging import Merge, describe, merge
from harness.engine.random_weights import make_base
from harness.export import shards
from harness.hardware.environment import cpu_name
from harness.models.resolving import resolve

ON = Machine(DeviceKind.CPU, "CPU", "float16", threads=1)
SHARD_SIZE = 2_000_000_000
CHUNK = 1 << 25
"""Number of elements that the phase `copy` casts and writes at a time."""


def make_adapter(ref: ModelRef, folder: Path) -> None:
    """Save random weights in the files that PEFT writes for an adapter."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    with torch.device("meta"):
        wanted = get_peft_model_state_dict(get_peft_model(describe(Path(ref.path)), config))
    folder.mkdir()
    config.save_pretrained(str(folder))
    random = {name: torch.randn(tensor.shape) / 1000 for name, tensor in wanted.items()}
    save_file(random, str(folder / "adapter_model.safetensors"))


def merge_of(ref: ModelRef, folder: Path) -> Merge:
    given = {"dtype": "float16", "compute_dtype": ON.compute_dtype, "nf4": True}
    return merge(ref, folder / "adapter", **given, saved=folder / "base")  # type: ignore[arg-type]


def merging(ref: ModelRef, folder: Path) -> None:
    made = merge_of(ref, folder)
    (folder / "merged").mkdir()
    list(shards.write(folder / "merged", made, shards.split(made.specs, SHARD_SIZE), "inputs"))


def copying(ref: ModelRef, folder: Path) -> None:
    """Read every byte of the base, and write as many bytes as the merged model has, cast from fp32, with fsync."""
    import torch

    (folder / "copied").mkdir()
    for path in sorted((folder / "base").glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 26):
                pass
    values = torch.randn(CHUNK)
    for number, part in enumerate(shards.split(merge_of(ref, folder).specs, SHARD_SIZE)):
        left = sum(map(shards.bytes_of, part.specs)) // 2
        with (folder / "copied" / str(number)).open("wb", buffering=0) as file:
            while left:
                count = min(left, CHUNK)
                file.write(values[:count].to(torch.float16).view(torch.uint8).numpy().data)
                left -= count
            os.fsync(file.fileno())


PHASES = {"merge": merging, "copy": copying}


def measured(phase: str, model: str, folder: Path) -> dict[str, float]:
    """Run a phase in its own process; return its seconds without imports, and its peak anonymous memory."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.merge",
        "--model",
        model,
        "--folder",
        str(folder),
        "--phase",
        phase,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.02)
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{phase} ended with {process.returncode}")
    return {"seconds": float(out.split()[-1]), "peak_anonymous_gib": round(peak / 2**20, 3)}


def anonymous(pid: int) -> int:
    """Return the process's anonymous memory in KiB, including shared and swapped pages."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0
    found = re.search(r"^Anonymous:\s+(\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def phase_alone(phase: str, ref: ModelRef, folder: Path) -> None:
    hide_kernel_advice()
    import bitsandbytes  # noqa: F401 - importing is no part of it
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    began = time.monotonic()
    PHASES[phase](ref, folder)
    print(time.monotonic() - began)


def figures(model: str, folder: Path) -> dict[str, object]:
    ref = resolve(model)
    if not (folder / "base").is_dir():
        (folder / ".partial-base").mkdir(parents=True)
        make_base(ref, Quantization.NF4, ON, folder / ".partial-base")
        (folder / ".partial-base").rename(folder / "base")
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    make_adapter(ref, folder / "adapter")
    found: dict[str, object] = {
        "command": f"python -m tests.benchmarks.merge --model {model}",
        "device": cpu_name(),
        "base_gb": _size(folder / "base") / 1e9,
    }
    for phase, made in (("copy", "copied"), ("merge", "merged"), ("copy again", "copied")):
        found[phase] = measured(phase.split()[0], model, folder)
        found["merged_gb"] = _size(folder / made) / 1e9
        shutil.rmtree(folder / made)
    copies = [found["copy"]["seconds"], found["copy again"]["seconds"]]  # type: ignore[index]
    found["times_of_copying"] = found["merge"]["seconds"] / (sum(copies) / 2)  # type: ignore[index]
    return found


def recorded(file: Path, model: str, found: dict[str, object]) -> None:
    """Write a model's figures to the file, and keep those of other models."""
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(held | {model: found}, indent=1) + "\n", encoding="utf-8")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:tinyllama-1.1b")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--phase", choices=PHASES)
    given = parser.parse_args()
    if given.phase:
        phase_alone(given.phase, resolve(given.model), given.folder)
        return 0
    with tempfile.TemporaryDirectory() as own:
        found = figures(given.model, given.folder or Path(own))
    print(json.dumps(found, indent=1))
    if given.output:
        recorded(given.output, given.model, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
