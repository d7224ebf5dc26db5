"""What a command writes to: people's text or JSON on stdout, messages on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "alarm": "1;31",
}

COMMAND = r"\bidi (?:audit |test )?[a-z]+(?: [gs]et [a-z][-a-z0-9]*)?(?: [a-z-]+=\d+)?(?: --[a-z-]+(?: [^\s;,:]+)?)*"
"""A command line of ours within a sentence."""

Line = list[tuple[str, str]]
"""Text in pieces with a style each ('' for none)."""


class Screen:
    """Where this command's output goes. With `as_json` stdout carries documents and nothing else; `live` says
    that there is a terminal in which things may change in place."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.terminal = is_terminal(sys.stdout)
        self.colour = self.terminal and wants_colour()
        self.live = self.terminal and not as_json and can_move_cursor() and in_foreground()
        self.colour_err = is_terminal(sys.stderr) and wants_colour()

    @property
    def width(self) -> int:
        return size()[0]

    def out(self, text: str | Line = "") -> None:
        """A line for people on stdout (nothing with --json)."""
        if not self.as_json:
            print(text if isinstance(text, str) else painted(text, colour=self.colour), flush=True)

    def tell(self, line: str | Line, *, indent: int = 0) -> None:
        """As `out`, broken between words where the terminal would break it anywhere."""
        for part in folded(line, self.width if self.terminal else 0, indent):
            self.out(part)

    def warn(self, line: str | Line, *, indent: int = 0) -> None:
        """As `err`, broken like `tell`."""
        for part in folded(line, self.width if is_terminal(sys.stderr) else 0, indent):
            self.err(part)

    def document(self, value: object, *, flush: bool = True) -> None:
        """A JSON document on a line of its own."""
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=flush)

    def raw(self, text: str) -> None:
        """Exactly this text on stdout."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def err(self, text: str | Line = "") -> None:
        """A message on stderr."""
        line = text if isinstance(text, str) else painted(text, colour=self.colour_err)
        print(line, file=sys.stderr, flush=True)


def painted(line: Line, *, colour: bool) -> str:
    if not colour:
        return "".join(text for text, _ in line)
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in line)


def folded(line: str | Line, width: int, indent: int = 0) -> list[Line]:
    """Broken between words into lines of at most `width` (0: not at all), the further ones indented. A word that
    has no room stays whole, and so does a command that somebody may want to copy."""
    import re

    from idi.cli.terminal.words import fitting

    left: Line = [(line, "")] if isinstance(line, str) else list(line)
    found: list[Line] = []
    while width:
        text = re.sub(COMMAND, unbroken, "".join(piece for piece, _ in left))
        fits = fitting(text, width)
        first = len(text) - len(text.lstrip())
        at = text.rfind(" ", first, fits + 1)
        if fits == len(text) or (at < 0 and (at := text.find(" ", max(fits, first))) < 0):
            break
        found.append(piece_of(left, 0, len(text[:at].rstrip())))
        rest = piece_of(left, at + len(text[at:]) - len(text[at:].lstrip()), len(text))
        left = [(" " * indent, ""), *rest] if indent else rest
    return [*found, left] if left or not found else found


def unbroken(found: re.Match[str]) -> str:
    return found[0].replace(" ", "\u00a0")


def piece_of(line: Line, start: int, end: int) -> Line:
    """Its characters from `start` to `end`, each in its style."""
    found: Line = []
    for text, style in line:
        part = text[max(start, 0) : max(end, 0)]
        if part:
            found.append((part, style))
        start, end = start - len(text), end - len(text)
    return found


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def wants_colour() -> bool:
    return not os.environ.get("NO_COLOR") and can_move_cursor()


def can_move_cursor() -> bool:
    return os.environ.get("TERM", "") not in ("dumb", "")


def in_foreground() -> bool:
    """Whether the terminal is ours to draw on, and not only to write to (`idi up &`)."""
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True  # no job control here


def size() -> tuple[int, int]:
    """Columns and rows of the terminal; columns are 0 (as wide as it gets) where there is none."""
    columns = os.environ.get("COLUMNS", "")
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
        return found.columns or 80, found.lines or 24
    except (OSError, ValueError, AttributeError):
        return int(columns) if columns.isdigit() else 0, 0
