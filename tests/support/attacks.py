"""What the study `hostile` does to a command: an attack, and the texts that many attacks use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "TOP-SECRET"
TRAP = "open('PWNED', 'w')\n"
ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202eevil"
MARKUP = "![p](http://evil/p.png) <img src=x> @octocat"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)
Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Attack:
    """One attack: what it changes in the scratch folder, the command, and what may happen."""

    place: str
    name: str
    words: Sequence[str]
    prepare: Prepare = lambda _folder: None
    expected: tuple[int, ...] = (2,)
    """Exit codes that are right."""
    environment: Mapping[str, str] = field(default_factory=dict)
    unwritten: str = ""
    """A text that no page of the command may contain outside code."""
    program: Sequence[str] = ("-m", "harness")
    around: Sequence[str] = ()
    """Program that starts the command, which is given as its further words."""


def kept(folder: Path) -> Path:
    """Return a file outside the suite, which no command may print, copy, change or delete."""
    path = folder / "keep" / "precious"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(SECRET, encoding="utf-8")
    return path
