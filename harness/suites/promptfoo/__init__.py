"""Read promptfoo's language: each module reads one part of a configuration as promptfoo 0.123 does.

| Module | Reads |
|---|---|
| `files` | file names and patterns, within the suite's folder |
| `references` | `$ref` |
| `prompts` | `prompts`, and conversations written as JSON or YAML |
| `tests` | `tests`, `scenarios`, and the files that they name |
| `variables` | `vars`: lists, files, and variables that name others |
| `templates` | Nunjucks, as far as it is certain to give the text that promptfoo gives |
| `written_cases` | cases before they are validated: files in them, unknown keys |

`harness.core.javascript` writes numbers and texts as JavaScript does; `harness.scoring.transforms` applies `transform`.

What cannot be read is raised as `UnsupportedError`, or noted in `Notices`. It is never asked as it stands.
"""

from __future__ import annotations
