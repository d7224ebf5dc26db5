"""Text to tree. Works on the parser's events, so that nothing a file does can exceed its bounds.

Composing goes on after a mistake wherever the text still has one meaning: duplicate keys, tags,
merge keys and unknown aliases are all reported at once. Only what breaks the syntax, nests too deep
or expands without end stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from idi.declaration.mistakes import Mistake
from idi.declaration.nodes import Entry, Items, Node, Scalar, Table
from idi.declaration.reader import Reader
from idi.declaration.scalars import impossible, kind_of, shown, why_not_text
from idi.declaration.syntax import explain

DEEPEST = 64
MOST_EXPANDED = 10_000
"""Nodes that aliases may add to those that are written."""

PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Stop(Exception):
    """Ends composing; what is wrong has been reported."""


def compose(source: str, reader: Reader, parser: Any = None) -> Table | None:
    """The declaration's tree, or None where there is none to read; mistakes go to `reader`."""
    try:
        return _document(_Composer(source, reader, iter(yaml.parse(source, Loader=parser or PARSER))), reader)
    except _Stop:
        return None
    except yaml.YAMLError as error:
        reader.mistakes[explain(error, source, reader.file)] = None
        return None


def _document(composer: _Composer, reader: Reader) -> Table | None:
    node: Node | None = None
    for event in composer.events:
        if isinstance(event, yaml.DocumentStartEvent):
            if node is not None:
                composer.report(
                    event, "a second document starts here; a declaration is one, remove the '---'."
                )
                break
            node = composer.node(next(composer.events), 0)
    if node is None or (isinstance(node, Scalar) and kind_of(node) == "null"):
        reader.mistakes[
            Mistake(
                reader.file,
                1,
                1,
                "this file is empty; a declaration begins with 'platform: NAME' (idi init writes an example).",
            )
        ] = None
        return None
    if not isinstance(node, Table):
        what = "a list" if isinstance(node, Items) else "a single text"
        reader.report(node, f"a declaration is a map with 'platform' and 'modules', not {what}.")
        return None
    return node


class _Composer:
    def __init__(self, source: str, reader: Reader, events: Iterator[Any]) -> None:
        self.source = source
        self.reader = reader
        self.events = events
        self.count = 0  # nodes, aliases expanded
        self.added = 0  # of these, nodes that came from aliases
        self.height = 0  # of the node composed last
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}

    def node(self, event: Any, depth: int) -> Node | None:
        """The next node; None for an alias to nothing, which has been reported."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if depth > DEEPEST:
            self._stop(
                event, f"this is nested more than {DEEPEST} levels deep; a declaration never needs that."
            )
        before = self.count
        self.count += 1
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # being composed: an alias to it would have no end
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.report(
                event,
                f"the tag {shown(tag)[1:-1]} has no place here; remove it, or quote the text if it begins with '!'.",
            )
        node: Node
        self.height = 0
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line, column)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(line, column, depth)
        else:
            node = self._table(line, column, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.count - before, self.height)
        return node

    def _scalar(self, event: Any, line: int, column: int) -> Scalar:
        text = event.value
        if why := impossible(text):
            self.report(event, why)
            text = "".join("?" if impossible(character) else character for character in text)
        return Scalar(
            text,
            event.style is None or event.style == "",
            line,
            column,
            event.start_mark.index,
            event.end_mark.index,
        )

    def _items(self, line: int, column: int, depth: int) -> Items:
        found, height = [], 0
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item = self.node(event, depth + 1)
            if item is not None:
                found.append(item)
            height = max(height, self.height + 1)
        self.height = height
        return Items(tuple(found), line, column)

    def _table(self, line: int, column: int, depth: int) -> Table:
        found: dict[str, Entry] = {}
        height = 0
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, depth + 1)
            height = max(height, self.height + 1)
            value = self.node(next(self.events), depth + 1)
            height = max(height, self.height + 1)
            if key is not None and value is not None and self._key_is_right(key, found):
                assert isinstance(key, Scalar)
                if isinstance(value, Scalar) and value.plain and value.text == "":
                    value = Scalar("", True, key.line, key.column)  # an empty value has no place of its own
                found[key.text] = Entry(key, value)
        self.height = height
        return Table(tuple(found.values()), line, column)

    def _key_is_right(self, key: Node, found: dict[str, Entry]) -> bool:
        if not isinstance(key, Scalar):
            self.reader.report(
                key, "a key is a plain name here, not a list or map; quote it if it is meant as text."
            )
        elif key.plain and key.text == "<<":
            self.reader.report(
                key,
                "merge keys ('<<') are refused, since they hide where a value comes from; use 'defaults', or write "
                "the lines out.",
            )
        elif kind_of(key) == "null":
            self.reader.report(key, "a key is missing here; write 'name: value'.")
        elif (why := why_not_text(key)) is not None:
            self.reader.report(key, why)
            return kind_of(key) in ("boolean", "truth") and key.text not in found
        elif key.text in found:
            first = found[key.text].key
            self.reader.report(
                key, f"{shown(key.text)} is given twice in this map (first in line {first.line}); remove one."
            )
        else:
            return True
        return False

    def _alias(self, event: Any, depth: int) -> Node | None:
        name = event.anchor
        if name not in self.anchors:
            hint = self.reader.hint(name, self.anchors)
            self.report(
                event, f"there is no anchor '&{name}' above; quote the text if it begins with '*'.{hint}"
            )
            return None
        known = self.anchors[name]
        if known is None:
            self._stop(
                event,
                f"the alias '*{name}' stands inside its own anchor, so it would have no end; write the value out.",
            )
        node, weight, height = known
        self.count += weight
        self.added += weight
        if self.added > MOST_EXPANDED:
            self._stop(
                event,
                f"the file explodes: its aliases add more than {MOST_EXPANDED} nodes; write the values out.",
            )
        if depth + height > DEEPEST:
            self._stop(
                event, f"this is nested more than {DEEPEST} levels deep; a declaration never needs that."
            )
        self.height = height
        return node

    def report(self, event: Any, message: str) -> None:
        at = event.start_mark
        self.reader.report(Scalar("", True, at.line + 1, at.column + 1), message)

    def _stop(self, event: Any, message: str) -> NoReturn:
        self.report(event, message)
        raise _Stop
