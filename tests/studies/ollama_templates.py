"""Compares what Ollama's templates render, in Go, with what chat templates of known models render.

    python -m tests.studies.ollama_templates NAME=FOLDER [NAME=FOLDER...] --output reports/studies/ollama.json

Needs Go (`apt-get install golang-go`). Each FOLDER has a model's tokenizer.json and tokenizer_config.json. Every prompt
of the suites `workshop`, `json-format` and `retention` is rendered as it is, and with a system prompt, by the model's
chat template in Jinja as a run asks it, and by its translation in Go's package text/template.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from harness.core.conversations import messages_of, with_system_prompt
from harness.core.errors import HarnessError
from harness.core.suite import Message
from harness.export.go_template import first_difference, translate
from harness.models.tokenizer_files import read_tokenizer
from harness.storage.files import write_text
from harness.suites import load_suite
from tests.support.go_program import rendered_by_go

SUITES = Path(__file__).resolve().parents[2] / "suites"
NAMES = ("workshop", "json-format", "retention")
SYSTEM = 'You are "kind".\nAnswer {{ briefly }}.'


def conversations() -> dict[str, list[tuple[Message, ...]]]:
    """Return every prompt of each suite, without and with a system prompt."""
    found = {}
    for name in NAMES:
        suite = load_suite(SUITES / name)
        asked = [messages_of(suite, case) for case in suite.cases]
        found[name] = [*asked, *(with_system_prompt(SYSTEM, each) for each in asked)]
    return found


def compared(folder: Path, work: Path) -> dict[str, Any]:
    """Return the number of prompts of each suite that come out equal, or why the template is refused."""
    known = read_tokenizer(folder)
    if isinstance(known, str):
        return {"refused": known}
    ask = known.conversations.asked_text
    try:
        template = translate(ask)
    except HarnessError as error:
        return {"refused": str(error)}
    given = conversations()
    rendered = rendered_by_go(work, [(template.source(), talks) for talks in given.values()])
    found: dict[str, Any] = {"system_messages": template.has_system}
    for (name, talks), texts in zip(given.items(), rendered, strict=True):
        expected = [ask(talk) for talk in talks]
        pairs = list(zip(expected, texts, strict=True))
        found[name] = {"prompts": len(pairs), "equal": sum(one == other for one, other in pairs)}
        if different := [pair for pair in pairs if pair[0] != pair[1]]:
            found[name]["first_difference"] = first_difference(*different[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    named = [text.partition("=")[::2] for text in given.tokenizers]
    with tempfile.TemporaryDirectory() as work:
        found = {name: compared(Path(folder), Path(work)) for name, folder in named}
    shown = " ".join(f"{name}=FOLDER" for name, _ in named)
    command = f"python -m tests.studies.ollama_templates {shown} --output reports/studies/ollama.json"
    text = json.dumps({"command": command, "system_prompt": SYSTEM, "templates": found}, indent=1, ensure_ascii=False)
    write_text(given.output, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
