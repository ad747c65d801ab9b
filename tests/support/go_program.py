"""Renders Go templates with Go's package text/template, as Ollama does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.core.conversations import as_chat
from harness.core.suite import Message

PROGRAM = Path(__file__).with_name("go_template.go")


def has_go() -> bool:
    """Whether Go is installed (Debian: `apt-get install golang-go`)."""
    return shutil.which("go") is not None


def rendered_by_go(folder: Path, templates: Sequence[tuple[str, Sequence[Sequence[Message]]]]) -> list[list[str]]:
    """Return what Go renders with each template, for each of its conversations. Go caches its results in `folder`."""
    jobs = [{"source": source, "conversations": list(map(as_chat, each))} for source, each in templates]
    made = subprocess.run(
        ["go", "run", str(PROGRAM)],
        input=json.dumps({"templates": jobs}),
        env=os.environ | {"GOCACHE": str(folder), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return list(json.loads(made.stdout))
