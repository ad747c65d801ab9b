"""Values and helpers for tests of stored files: texts that are hard to store, answers, and an adapter's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.answers import Answer, Likelihood
from harness.core.measurement import Phase
from harness.storage.cache import AnswerPass
from tests.support.made_results import cost
from tests.support.synthetic_runs import HOSTILE, variants

HARD = (*HOSTILE, "a line\u2028a paragraph\u2029a next line\x85a return\r\nand \\ \" ' \x7f\ufeff\uffff", "")
"""Texts that are hard to store and to display."""
(VARIANT,) = variants(1)
CHOICES = (Likelihood(-1.5, 3), Likelihood(-0.1, 1))
PASS = AnswerPass((Answer("key", "text", 3, False, CHOICES[0], None, CHOICES),), (cost(Phase.ANSWER_AFTER, 2.0),))
FULL = "Free some space (`harness clean` shows what the cache holds), then run the same command again."
"""The remedy that the harness gives if the disk is full."""


def names(folder: Path) -> list[str]:
    """Return the sorted names of the files and folders in a folder."""
    return sorted(path.name for path in folder.iterdir())


def readable(text: str) -> str:
    """Return a text as it is read back from a file, with question marks instead of lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def save_adapter(folder: Path) -> None:
    """Write the files of an adapter into a folder, as an engine would."""
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (folder / "sub").mkdir()
    (folder / "sub" / "a name with  blanks").write_text("{}", encoding="utf-8")


def tensors_in(folder: Path) -> dict[str, Any]:
    """Return the tensors of the adapter in a folder, by name."""
    from safetensors.torch import load_file

    return dict(load_file(str(folder / "adapter_model.safetensors")))
