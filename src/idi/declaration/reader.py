"""Collects mistakes while a tree is read, and knows the place of a piece inside a scalar."""

from __future__ import annotations

from collections.abc import Iterable

from idi.declaration.mistakes import Mistake
from idi.declaration.nearest import nearest
from idi.declaration.nodes import Node, Scalar
from idi.declaration.scalars import printable
from idi.declaration.source import position

MOST_HINTS = 100
"""Looking for the nearest name is slow; who makes more mistakes than this is not helped by more hints."""


class Reader:
    """`mistakes` and `warnings` keep what was reported, once each; order is made at the end."""

    __slots__ = ("file", "hints", "mistakes", "source", "warnings")

    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.source = source
        self.hints = MOST_HINTS
        self.mistakes: dict[Mistake, None] = {}
        self.warnings: dict[Mistake, None] = {}

    def nearest(self, wrong: str, valid: Iterable[str]) -> str | None:
        """The valid name that was probably meant."""
        if self.hints <= 0:
            return None
        self.hints -= 1
        return nearest(wrong, valid)

    def hint(self, wrong: str, valid: Iterable[str]) -> str:
        """` Did you mean 'cam'?` with its leading space, or nothing."""
        found = self.nearest(wrong, valid)
        return f" Did you mean '{found}'?" if found else ""

    def report(self, node: Node, message: str) -> None:
        self.mistakes[Mistake(self._file(node), node.line, node.column, _fit(message))] = None

    def warn(self, node: Node, message: str) -> None:
        self.warnings[Mistake(self._file(node), node.line, node.column, _fit(message))] = None

    def report_within(self, node: Scalar, offset: int, piece: str, message: str) -> None:
        """Reports `piece`, found at `offset` of the scalar's text, where it stands in the file."""
        line, column = self._place_within(node, offset, piece)
        self.mistakes[Mistake(self._file(node), line, column, _fit(message))] = None

    def warn_within(self, node: Scalar, offset: int, piece: str, message: str) -> None:
        line, column = self._place_within(node, offset, piece)
        self.warnings[Mistake(self._file(node), line, column, _fit(message))] = None

    def _file(self, node: Node) -> str:
        return (isinstance(node, Scalar) and node.place) or self.file

    def _place_within(self, node: Scalar, offset: int, piece: str) -> tuple[int, int]:
        raw = self.source[node.start : node.end]
        found = -1
        for _ in range(node.text[:offset].count(piece) + 1):
            found = raw.find(piece, found + 1)
        if found < 0:  # written with escapes or folded: the scalar's own place is the best there is
            return node.line, node.column
        line, column = position(raw, found)
        return node.line + line - 1, column + (node.column - 1 if line == 1 else 0)


LONGEST_MESSAGE = 1000


def _fit(message: str) -> str:
    """A message holds names as they were written: nothing in them may upset a terminal or fill it."""
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + "..."
    return message if message.isprintable() else "".join(map(printable, message))
