"""Parse YAML text into plain values with their line and column.

Scalars follow the core schema of YAML 1.2: `no`, `on` and `12:30:00` are text, `1e-4` is a number. Tags, duplicate
keys, deep nesting and oversized text are refused, because they can cause surprises or exhaust memory. Anchors (`&a`),
aliases (`*a`) and merge keys (`<<: *a`) are read, as long as all aliases together stand for at most `MAX_REPEATED`
values.
The tree is built from the parser's events, because PyYAML's own composer would overflow the stack on deep nesting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from harness.core.errors import HarnessError, Place

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_REPEATED = 50_000
"""Largest number of values that the aliases of a document may stand for. A few lines of nested aliases could mean
billions of values, which no computer can hold."""
MERGE = "<<"
OTHER_BREAKS = "\x85\u2028\u2029"
"""Characters that end a line in YAML 1.1, which PyYAML reads, and in no other format; in YAML 1.2 they are text."""
STAND_INS = "\ue085\ue028\ue029"
"""Private characters that stand for them while PyYAML reads a text."""
AS_TEXT = str.maketrans(OTHER_BREAKS, STAND_INS)
AS_WRITTEN = str.maketrans(STAND_INS, OTHER_BREAKS)
# CSafeLoader, which needs libyaml, is ten times as fast as SafeLoader. Both parse the same language.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Value: TypeAlias = Any
Location: TypeAlias = Sequence[str | int]


class WrittenInt(int):
    """An integer with its spelling, so that an unquoted `007` stays "007" where text is expected."""

    written: str


class WrittenFloat(float):
    """A float with its spelling, such as `1e-4`."""

    written: str


@dataclass(slots=True)
class Node:
    """A value with its line and column, counted from 1. A mapping also has the lines and columns of its keys."""

    line: int | None
    column: int | None
    value: Any
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def children(self) -> list[Node]:
        """The values directly inside a mapping or a list."""
        inside = self.value.values() if isinstance(self.value, dict) else self.value
        return [child for child in inside if isinstance(child, Node)] if isinstance(self.value, dict | list) else []

    def child(self, part: str | int) -> Node | None:
        """Return the value under a key of a mapping or an index of a list, or None if there is none."""
        inside = self.value
        if isinstance(inside, dict):
            found = inside.get(part)
        elif isinstance(inside, list) and isinstance(part, int) and 0 <= part < len(inside):
            found = inside[part]
        else:
            found = None
        return found if isinstance(found, Node) else None


@dataclass(frozen=True)
class Document:
    """The values of a file with their places. `error` is the exception class for mistakes in the file."""

    file: str
    root: Node
    error: type[HarnessError]

    @property
    def value(self) -> Value:
        """The values as plain dictionaries, lists and scalars."""
        return plain(self.root)

    def place(self, location: Location = (), *, key: bool = False) -> Place:
        """Return the place of the value at a location or, with `key`, the place of its key.

        If the value is missing, return the place of the innermost value that encloses it.
        """
        node = self.root
        for position, part in enumerate(location):
            last = position == len(location) - 1
            if key and last and part in node.keys:
                return Place(self.file, *node.keys[str(part)])
            # Parts without a child come from pydantic (the branch of a union), not from the file.
            node = node.child(part) or node
        return Place(self.file, node.line, node.column)

    def part(self, location: Location) -> Document:
        """Return the value at this location as a document."""
        node = self.root
        for step in location:
            node = node.child(step) or node
        return Document(self.file, node, self.error)

    def wrong(self, message: str, remedy: str = "", location: Location = (), *, key: bool = False) -> HarnessError:
        """Return an error about the value at a location or, with `key`, about its key."""
        return self.error(message, remedy=remedy, place=self.place(location, key=key))


def of_value(value: Value, place: Place, error: type[HarnessError]) -> Document:
    """Return a document for a value that is not from YAML, such as a CSV row. All parts of it have the same place."""
    return Document(place.file, Node(place.line, place.column, value), error)


def plain(node: Node) -> Value:
    """Return the value of a node without any places."""
    if isinstance(node.value, dict):
        return {key: plain(child) if isinstance(child, Node) else child for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) if isinstance(child, Node) else child for child in node.value]
    return node.value


def parse_yaml(text: str, file: str, error: type[HarnessError], *, loader: Any = LOADER) -> Document:
    """Parse one plain YAML document; raise `error`, with line and column, for any other text."""
    if len(text) > MAX_CHARACTERS:
        raise error(
            f"is larger than {MAX_CHARACTERS // 1024**2} MiB",
            remedy="Move long lists of cases into a separate CSV or JSONL file.",
            place=Place(file),
        )
    # A text that has the private characters itself is left alone.
    has_other_breaks = any(one in text for one in OTHER_BREAKS) and not any(one in text for one in STAND_INS)
    builder = _Builder(file, error, AS_WRITTEN if has_other_breaks else {})
    try:
        written = text.translate(AS_TEXT) if has_other_breaks else text
        return Document(file, builder.build(yaml.parse(written, Loader=loader)), error)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        words = ", ".join(part for part in (problem.problem, problem.context) if part)
        raise error(f"not valid YAML: {words}", remedy=_yaml_remedy(words), place=place) from None
    except (yaml.reader.ReaderError, UnicodeEncodeError) as problem:
        raise _unreadable(text, file, error, problem) from None


def _unreadable(text: str, file: str, error: type[HarnessError], problem: Exception) -> HarnessError:
    found = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    if not found:
        return error(f"not valid YAML: {problem}", place=Place(file))
    before = text[: found.start()]
    place = Place(file, before.count("\n") + 1, found.start() - (before.rfind("\n") + 1) + 1)
    return error(f"contains the unprintable character U+{ord(found.group()):04X}", remedy="Remove it.", place=place)


def _tag_remedy(event: Any) -> str:
    if event.tag == "tag:yaml.org,2002:str" and isinstance(event, yaml.ScalarEvent):
        return f"Write {json.dumps(event.value[:60], ensure_ascii=False)} in quotes, without the tag."
    return "Remove the tag, or put quotes around the text if it begins with '!'."


def _yaml_remedy(words: str) -> str:
    if "cannot start any token" in words:
        return "Indent with spaces, and quote text that begins with a tab, @, ` or %."
    return "Check indentation, brackets and quotes; quote text that contains ': ' or ' #'."


@dataclass(frozen=True)
class Anchored:
    """A value that has a name, so that aliases can stand for it."""

    node: Node
    size: int
    """Number of values in it, with itself; what an alias inside it stands for counts again."""
    depth: int
    """Number of levels inside it."""


def _extent(node: Node) -> tuple[int, int]:
    """Return the number of values in a node, with itself, and its number of levels below itself."""
    size, depth, level = 0, -1, [node]
    while level:
        size, depth = size + len(level), depth + 1
        level = [child for inside in level for child in inside.children]
    return size, depth


class _Builder:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, file: str, error: type[HarnessError], as_written: dict[int, int]) -> None:
        """`as_written`: the characters to replace in every text."""
        self.file, self.error, self.as_written = file, error, as_written
        self.anchors: dict[str, Anchored] = {}
        self.repeated = 0

    def build(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise self.wrong(event, "a second document begins here", "Keep one document in a file: remove '---'.")
            if isinstance(event, yaml.NodeEvent):
                root = self.node(event, events, 0)
        return root or Node(1, 1, None)

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if event.tag is not None:
            raise self.wrong(event, f"tags are not accepted: {event.tag}", _tag_remedy(event))
        if depth > MAX_DEPTH:
            raise self.wrong(event, f"is nested more than {MAX_DEPTH} levels deep", "Check for unbalanced brackets.")
        node = Node(event.start_mark.line + 1, event.start_mark.column + 1, None)
        if isinstance(event, yaml.ScalarEvent):
            node.value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node.value = self.items(events, depth)
        else:
            self.pairs(node, events, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = Anchored(node, *_extent(node))
        return node

    def alias(self, event: Any, depth: int) -> Node:
        """Return the value that an alias stands for, with the places of the value itself."""
        anchored = self.anchors.get(event.anchor)
        if anchored is None:
            remedy = f"Mark the value before it with &{event.anchor}, or quote the text if it begins with '*'."
            raise self.wrong(event, f"the alias *{event.anchor} stands for nothing", remedy)
        self.repeated += anchored.size
        if self.repeated > MAX_REPEATED:
            what = f"the aliases stand for more than {MAX_REPEATED:,} values"
            raise self.wrong(event, what, "Write the values out, or repeat fewer of them.")
        if depth + anchored.depth > MAX_DEPTH:
            raise self.wrong(event, f"is nested more than {MAX_DEPTH} levels deep", "Nest fewer aliases.")
        return anchored.node

    def items(self, events: Iterator[Any], depth: int) -> list[Node]:
        found = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self.node(event, events, depth + 1))
        return found

    def pairs(self, node: Node, events: Iterator[Any], depth: int) -> None:
        node.value = {}
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, node)
            node.keys[key] = (event.start_mark.line + 1, event.start_mark.column + 1)
            value = self.node(next(events), events, depth + 1)
            if key == MERGE and not event.style:
                merged += self.merged(value, event)
                del node.keys[key]
            else:
                node.value[key] = value
        for mapping in merged:  # keys of the mapping itself come first, then those of the earlier merged mappings
            for key in mapping.value.keys() - node.value.keys():
                node.keys[key] = mapping.keys[key]
            node.value = {**mapping.value, **node.value}

    def merged(self, value: Node, event: Any) -> list[Node]:
        """Return the mappings whose keys `<<` adds to a mapping."""
        found = value.value if isinstance(value.value, list) else [value]
        if not all(isinstance(mapping.value, dict) for mapping in found):
            raise self.wrong(event, "<< adds the keys of a mapping, or of a list of mappings", "Write <<: *NAME.")
        return found

    def key(self, event: Any, node: Node) -> str:
        """Return a key as it is written, so that `no:` and `1:` are the texts "no" and "1"."""
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise self.wrong(
                event, "this key is not plain text", "Quote the key if it begins with '{', '[', '&', '*' or '!'."
            )
        name = self.text(event)
        if name in node.keys:
            first = node.keys[name][0]
            raise self.wrong(
                event, f'the key "{name[:60]}" is given twice, first in line {first}', "Remove one of them."
            )
        return name

    def scalar(self, event: yaml.ScalarEvent) -> Value:
        text = self.text(event)
        try:
            return resolve(text) if event.implicit[0] else text
        except ValueError:
            raise self.wrong(event, "a number with too many digits", "Quote it if it is text.") from None

    def text(self, event: yaml.ScalarEvent) -> str:
        return str(event.value).translate(self.as_written) if self.as_written else str(event.value)

    def wrong(self, event: Any, message: str, remedy: str) -> HarnessError:
        mark = event.start_mark
        return self.error(message, remedy=remedy, place=Place(self.file, mark.line + 1, mark.column + 1))


_CONSTANTS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASES = {"0o": 8, "0x": 16}


def resolve(text: str) -> Value:
    """Return the value of an unquoted scalar in the core schema of YAML 1.2 (section 10.3.2).

    Raises ValueError for an integer with more digits than Python converts.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        base = _BASES.get(text[:2], 10)
        integer = WrittenInt(text[2:] if base != 10 else text, base)
        integer.written = text
        return integer
    if _FLOAT.fullmatch(text):
        number = WrittenFloat(re.sub(r"\.(?=[iInN])", "", text))
        number.written = text
        return number
    return text
