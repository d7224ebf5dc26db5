"""The tree between text and types: what was written and where, before anybody asks what it means.

Nodes never change. An anchored node is shared by its aliases, so a mistake in it is reported where
it is written. `layer` on an entry tells an environment's overrides, and what was set beside the file, from its base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Layer = Literal["file", "environment", "overlay"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as written; `plain` without quotes. `start` and `end` delimit it in the source; `place` says where it
    comes from if that is no file (`idi.declaration.overlay`)."""

    text: str
    plain: bool
    line: int
    column: int
    start: int = 0
    end: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Entry:
    key: Scalar
    value: Node
    layer: Layer = "file"


@dataclass(frozen=True, slots=True)
class Table:
    """A map; its keys are distinct."""

    entries: tuple[Entry, ...]
    line: int
    column: int
    _index: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {entry.key.text: entry for entry in self.entries})

    def entry(self, key: str) -> Entry | None:
        return self._index.get(key)

    def get(self, key: str) -> Node | None:
        entry = self.entry(key)
        return entry.value if entry else None

    def without(self, *keys: str) -> Table:
        return Table(tuple(e for e in self.entries if e.key.text not in keys), self.line, self.column)


Node: TypeAlias = Scalar | Items | Table


def find(root: Node, *path: str | int) -> Node | None:
    """The node at a path of keys and indices, or None."""
    node: Node | None = root
    for step in path:
        if isinstance(step, int):
            if not isinstance(node, Items) or step >= len(node.items):
                return None
            node = node.items[step]
        else:
            node = node.get(step) if isinstance(node, Table) else None
        if node is None:
            return None
    return node


def keys(root: Node, *path: str | int) -> tuple[Scalar, ...]:
    """The keys of the map at a path; nothing where there is no map."""
    node = find(root, *path)
    return tuple(entry.key for entry in node.entries) if isinstance(node, Table) else ()


def items(root: Node, *path: str | int) -> Iterator[Scalar]:
    """The scalars of the list at a path; nothing where there is no list."""
    node = find(root, *path)
    if isinstance(node, Items):
        for item in node.items:
            if isinstance(item, Scalar):
                yield item


def names_of(root: Node, *path: str | int) -> tuple[str, ...]:
    return tuple(key.text for key in keys(root, *path))


def kind_words(node: Node) -> str:
    return "a map" if isinstance(node, Table) else "a list" if isinstance(node, Items) else "text"
