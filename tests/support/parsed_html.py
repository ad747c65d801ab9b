"""Parses an HTML page into elements, for tests of what a browser would show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "input", "img", "br", "link", "hr"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Return every element below this one with the tag and attributes; `class_` means one of its classes."""
        return [
            e for e in self.below() if (not tag or e.tag == tag) and all(e.has(k, v) for k, v in attributes.items())
        ]

    def below(self) -> Iterator[Element]:
        """Yield every element below this one, in the order of the page."""
        left = [self]
        while left:
            here = left.pop()
            if here is not self:
                yield here
            left += [child for child in reversed(here.children) if isinstance(child, Element)]

    def has(self, name: str, value: str) -> bool:
        if name == "class_":
            return value in (self.attributes.get("class") or "").split()
        return self.attributes.get(name) == value

    def id(self, name: str) -> Element:
        [found] = self.all(id=name)
        return found


class Tree(HTMLParser):
    """Builds elements, and checks that each is closed inside the element in which it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.here = Element("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.here.children.append(Element(tag, dict(attrs), self.here))

    def handle_endtag(self, tag: str) -> None:
        assert self.here.tag == tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)


def parse(html: str) -> Element:
    tree = Tree()
    tree.feed(html)
    tree.close()
    assert tree.here is tree.root
    return tree.root
