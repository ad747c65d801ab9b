"""The modules of this package that a notebook contains, since Colab and Kaggle do not have the package.

They are the files as they are, so that a notebook scores and filters answers exactly as a run does.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from harness.scoring import registry

_PACKAGE = Path(__file__).resolve().parents[2]
SCORING = "harness.scoring.judging"
REHEARSAL = "harness.core.rehearsal_answers"
CONVERSION = ("harness.engine.gguf_conversion", "harness.models.gguf_facts")
SMOLLM2 = "harness.models.smollm2"
_EMPTY_FAMILY = '"""No case of this notebook has an assertion of this family."""\n\nTYPES = ()\n'


def own_code(modules: Iterable[str], families: Collection[str]) -> dict[str, str]:
    """Return the text of modules, and of all that they import when they are imported, by their paths.

    Of the modules that define assertion types, only those in `families` and what they import are contained; the others
    have no types.
    """
    # The registry imports every family; what others import is needed.
    used = _with_imports([*families, *modules], frozenset({registry.__name__}))
    empty = frozenset(family.__name__ for family in registry.FAMILIES) - used
    found = used | _with_imports(modules, empty)
    texts = {_path(name): _EMPTY_FAMILY if name in empty else _text(name) for name in sorted(found)}
    folders = {parent for path in texts for parent in Path(path).parents if parent.name}
    return {f"{folder}/__init__.py": "" for folder in sorted(folders)} | texts


def _with_imports(modules: Iterable[str], unread: Collection[str]) -> frozenset[str]:
    """Return modules and all that they import, but not the imports of the modules in `unread`."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [] if name in unread else _imports(name)
    return frozenset(found)


def _imports(module: str) -> Iterator[str]:
    """Yield the modules of this package that a module imports when it is imported itself."""
    for node in ast.parse(_text(module)).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == _PACKAGE.name:
            inner = [name for alias in node.names if _is_module(name := f"{node.module}.{alias.name}")]
            yield from inner
            if len(inner) < len(node.names):
                yield node.module


def _is_module(name: str) -> bool:
    return (_PACKAGE.parent / _path(name)).is_file()


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _text(module: str) -> str:
    return (_PACKAGE.parent / _path(module)).read_text(encoding="utf-8")
