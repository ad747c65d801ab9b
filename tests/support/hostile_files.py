"""Files for the study `hostile`: a sound suite, model, adapter and run in a scratch folder, and ways to spoil them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from harness.models.resolving import POCKET
from tests.support.report_runs import stored
from tests.support.small_suite import small_suite
from tests.support.synthetic_runs import results

RUN = "run"


def suite(folder: Path, text: str | None = None) -> Path:
    """Write a suite with the grid `g` into the folder `s`; `text` replaces the content of suite.yaml."""
    if not (folder / "s").exists():
        small_suite(folder).rename(folder / "s")
        (folder / "s" / "grids" / "quick.yaml").rename(folder / "s" / "grids" / "g.yaml")
    if text is not None:
        edited(folder / "s" / "suite.yaml", text)
    return folder / "s"


def edited(path: Path, content: object) -> Path:
    """Replace a file's content."""
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode("utf-8", "surrogatepass"))
    return path


def fifo(path: Path) -> None:
    """Replace a file by a pipe without a writer."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def model(folder: Path) -> Path:
    """Write a suite, and a copy of the pocket model into the folder `m`."""
    suite(folder)
    return Path(shutil.copytree(POCKET, folder / "m"))


def template(folder: Path, before: str) -> None:
    """Write a suite and a model whose chat template begins with `before`."""
    path = model(folder) / "chat_template.jinja"
    edited(path, before + path.read_text(encoding="utf-8"))


def adapter(folder: Path, *, weights: bytes | None = None, pickle: bytes | None = None, **changes: Any) -> Path:
    """Write an adapter of PEFT into the folder `a`, with changes of its configuration."""
    made = folder / "a"
    made.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    edited(made / "adapter_config.json", json.dumps(config | changes))
    if pickle:
        edited(made / "adapter_model.bin", pickle)
    elif weights:
        edited(made / "adapter_model.safetensors", weights)
    else:
        save_file({"a.lora_A.weight": np.zeros((2, 3), np.float32)}, made / "adapter_model.safetensors")
    return made


def run(folder: Path, *, name: str = "") -> Path:
    """Write the run directory `run`, whose first variants have the given name."""
    made = results(8, 18, hostile=bool(name), confirm=0, failures=False)
    if name:
        first, *rest = made.variants
        old = first.name
        samples = tuple(replace(s, variant=name) if s.variant == old else s for s in made.samples)
        plan = made.run.plan
        variants = tuple(replace(v, name=name) if v.name == old else v for v in plan.variants)
        whole = replace(made.run, plan=replace(plan, variants=variants))
        made = replace(made, run=whole, variants=(replace(first, name=name), *rest), samples=samples)
    return stored(made, folder / RUN) if not (folder / RUN).exists() else folder / RUN
