"""Compares prompts with promptfoo's for values that are hard to insert: JSON, YAML, quotes, numbers, nested variables.

    python -m tests.studies.promptfoo_values --promptfoo DIST --node NODE [--output FILE]

Every prompt below is asked with every value, as a configuration of its own for each prompt and kind (usual, red team).
What the harness reads must be what promptfoo gives its echo provider, in the order of the values. What it does not read
is counted by its reason. Exits with 1 if a prompt differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from harness.core.errors import HarnessError
from harness.suites import load_suite
from tests.studies.promptfoo_oracle import Oracle
from tests.studies.promptfoo_suites import as_asked, conversation

PROMPTS = (
    "{{q}}",
    "Say {{q}} to {{other}}.",
    "  {{ q }}\n\n",
    '"{{q}}"',
    "{{q | dump}}",
    "{{q | default('none')}}{% if q %} yes{% endif %}",
    '[{"role": "system", "content": "Be {{other}}."}, {"role": "user", "content": "{{q}}"}]',
    '[{"role": "user", "content": "  {{q}}\\n"}]\n',
    '[{"role": "user", "content": [{"type": "text", "text": "Say \\"{{q}}\\""}]}]',
    '[{"role": "user", "content": {{q | dump}}}]',
    '[{% if q %}{"role": "system", "content": "b"}, {% endif %}{"role": "user", "content": "{{q}}"}]',
    "- role: system\n  content: Be {{other}}.\n- role: user\n  content: {{q}}\n",
    '- role: user\n  content: "{{q}}"\n',
    "- role: user\n  content: |\n    {{q}}\n    end\n",
    '{"messages": [{"role": "user", "content": "{{q}}"}]}',
)
VALUES: tuple[Any, ...] = (
    *("plain", 'with "quotes"', "it's", "two\nlines", "trail\n", "trail\n\n", "\nlead", "  spaced  ", "tab\there"),
    *("back\\slash", "a: b", "a #b", "#b", "- list", "a,b", "é\u2028x", "😀", "$& $1 $$", "%d {0}", ""),
    *("yes", "no", "null", "true", "5", "1.50", "007", "1e3", "0x1F", "2024-01-02", "~"),
    *("[1, 2]", '{"a": 1}', '"text"', '[{"role": "user", "content": "in"}]', "- role: user\n  content: in"),
    *("{{other}}", "{{ other }} and {{other}}", "{{third}}", "{% if other %}y{% endif %}", "{{missing}}"),
    *("{", "}}", "{{", "{%", "{ {", "{#c#}", "{% raw %}{{other}}{% endraw %}"),
    *(5, 0, -1, 1.5, 1e21, 1e-7, 2**53, True, False, None),
    *([], ["a", "b"], [1, "a"], [[1], [2]], [None], {"a": 1}, {"a": {"b": [1, None]}}),
)
REDTEAM: dict[str, Any] = {"purpose": "p", "injectVar": "q"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--promptfoo", type=Path, required=True)
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = list(written(Path(folder)))
        answers = Oracle(given.promptfoo, given.node).ask("prompts", [str(file) for file in files])
        record = compared(files, answers)
    record["command"] = "python -m tests.studies.promptfoo_values --promptfoo DIST --node NODE"
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    return int(bool(record["different"]))


def written(folder: Path) -> list[Path]:
    """Write a configuration for each prompt, kind and value, and return their paths."""
    files: list[Path] = []
    for kind in ({}, {"redteam": REDTEAM}):
        for prompt in PROMPTS:
            for value in VALUES:
                third = "is brief" if kind else "is {{other}}"  # a red team's templates are all refused
                variables = {"q": value, "other": "brief", "third": third}
                test = {"vars": variables, "assert": [{"type": "contains", "value": "x"}]}
                file = folder / f"{len(files)}.yaml"
                config = {"prompts": [prompt], "providers": ["echo"], "tests": [test], **kind}
                # JSON is YAML, and both programs read it alike.
                file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
                assert yaml.safe_load(file.read_text(encoding="utf-8"))
                files.append(file)
    return files


def compared(files: list[Path], answers: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    different: list[Any] = []
    for file, answer in zip(files, answers, strict=True):
        if "error" in answer or None in answer["value"]:
            counts["promptfoo refuses it"] += 1
            continue
        theirs = [as_asked(prompt) for prompt in answer["value"]]
        try:
            ours = [conversation(case) for case in load_suite(file).cases]
        except HarnessError as problem:
            counts["refused"] += 1
            lines = problem.message.splitlines()
            reasons[(lines[1] if len(lines) > 1 else lines[0]).partition(": " if len(lines) > 1 else "\n")[0]] += 1
            continue
        if ours == theirs:
            counts["equal"] += 1
        else:
            different.append([json.loads(file.read_text(encoding="utf-8")), ours, theirs])
    return {
        "configurations": len(files),
        **counts,
        "different": different[:20],
        "number of different ones": len(different),
        "refused because of": reasons.most_common(20),
    }


if __name__ == "__main__":
    sys.exit(main())
