"""Prints training rows and cases as the model gets them, for `harness tokens`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from harness.cli.output import Output
from harness.core.suite import Suite
from harness.core.turn_tokens import PartKind, TurnTokens, View
from harness.core.wording import listed, plural
from harness.models.token_check import Text as TokenText

_STYLES = {PartKind.TRAINED: "bold green", PartKind.CUT: "red", PartKind.GIVEN: "", PartKind.ASKED: ""}


def print_tokens(suite: Suite, turns: TurnTokens, views: Sequence[View], texts: TokenText, *, ids: bool) -> None:
    """Print how turns end, then the rows and cases; with `ids`, one line per token.

    Texts of suites and models are untrusted; `Output` shows their control characters by name.
    """
    console = Output()

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    rows, cases = plural(len(suite.examples), "training row"), plural(len(suite.cases), "case")
    say(f"{suite.name}: {rows} and {cases}, all of which were checked.")
    stops = f"generation stops at {plural(len(turns.ends), 'token id').partition(' ')[2]} {listed(turns.ends)}"
    say(f"Each answer ends with {turns.end_text}, token id {turns.end}; {stops}.")
    for sentence in turns.notices:
        say(sentence)
    for view in views:
        say("")
        trained = sum(len(part.ids) for part in view.parts if part.kind is PartKind.TRAINED)
        of = f", {trained} of them trained" if trained else ""
        say(f"{view.name}: {plural(view.tokens, 'token')}{of}")
        for line, style in _lines(view, texts, ids=ids):
            say(line, style)


def _lines(view: View, texts: TokenText, *, ids: bool) -> list[tuple[str, str]]:
    if not ids:
        return [(f"  {part.kind:<9}{_on_one_line(part.text)}", _STYLES[part.kind]) for part in view.parts]
    tokens = ((part, token) for part in view.parts for token in part.ids)
    return [
        (f"  {at:>5} {part.kind:<9}{token:>7}  {_on_one_line(texts(token))}", _STYLES[part.kind])
        for at, (part, token) in enumerate(tokens)
    ]


def _on_one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")
