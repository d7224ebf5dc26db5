"""A block of lines at the bottom of the terminal, redrawn in place; lasting lines scroll up above it.

One write per frame, inside a synchronised update, so nothing flickers. The block never has more lines
than the terminal has rows, and no line is wider than it: otherwise "up N lines" would miss. After a
change of size terminals disagree about where everything went, so then the visible screen is drawn anew,
with the last lasting lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from idi.cli.terminal.screen import Line, Screen, painted, size
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.table import fit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

KEPT = 100
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Live:
    """Use it as a context: it hides the cursor and stops the echo of keys, and puts both back."""

    def __init__(self, screen: Screen, signals: Signals) -> None:
        self._screen = screen
        self._signals = signals
        self._height = 0
        self._size = (0, 0)
        self._last: list[Line] = []
        self._lasting: list[str] = []
        self._terminal: list[Any] | None = None
        self._gone = False

    def __enter__(self) -> Self:
        self._signals.before_pause = self.release
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.before_pause = None
        self.release()

    @property
    def width(self) -> int:
        return size()[0]

    def take(self) -> None:
        """Hide the cursor, no echo: keys typed meanwhile must not land in the table."""
        try:
            import termios

            number = sys.stdin.fileno()
            if os.isatty(number) and os.tcgetpgrp(number) == os.getpgrp():
                self._terminal = termios.tcgetattr(number)
                quiet = [*self._terminal]
                quiet[3] = (quiet[3] & ~termios.ECHO) | termios.NOFLSH  # Ctrl-C must not swallow half a frame
                termios.tcsetattr(number, termios.TCSADRAIN, quiet)
        except (ImportError, OSError, ValueError, AttributeError):
            self._terminal = None
        self._size = size()
        self._write(HIDE)

    def release(self) -> None:
        """The terminal as it was; what was drawn last stays."""
        self._write(SHOW)
        if self._terminal is not None:
            import termios

            try:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._terminal)
            except (OSError, termios.error):
                pass
            self._terminal = None

    def above(self, line: str | Line) -> None:
        """A line that stays, above the block."""
        text = line if isinstance(line, str) else painted(line, colour=self._screen.colour)
        self._lasting = [*self._lasting[-KEPT + 1 :], text]
        self._draw(self._last, [text])

    def show(self, lines: Sequence[Line]) -> None:
        self._last = list(lines)
        self._draw(self._last, [])

    def clear(self) -> None:
        """Take the block away."""
        self._last = []
        self._draw([], [])

    def finish(self) -> None:
        """The block stays as it is, whatever comes next is below it."""
        self._height = 0
        self._last = []

    def _draw(self, lines: list[Line], new: list[str]) -> None:
        if self._signals.resumed:
            self._signals.resumed = False
            self.take()
            self._height = 0  # what the shell wrote is below the block: begin below that
        columns, rows = now = size()
        frame = [BEGIN]
        if now != self._size:
            # `[3J` is left alone: the scrollback belongs to the user.
            frame.append("\x1b[H\x1b[2J")
            new = self._lasting[-rows:]
            self._size = now
        elif self._height:
            frame.append(f"\x1b[{self._height}A\r")
        for text in new:
            frame.append(f"{text}\x1b[K\n")
        if lines and self._lasting:
            lines = [[], *lines]
        shown = [fit(line, columns) for line in cropped(lines, rows - 1)]
        for line in shown:
            frame.append(f"{painted(line, colour=self._screen.colour)}\x1b[K\n")
        frame += ["\x1b[J", END]
        self._write("".join(frame))
        self._height = len(shown)

    def _write(self, text: str) -> None:
        if self._gone:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the terminal is gone (SIGHUP); what has to be done goes on without it
            self._gone = True


def cropped(lines: list[Line], rows: int) -> list[Line]:
    """Not more lines than there are rows: the first ones, how many are missing, and the last one."""
    if rows <= 0 or len(lines) <= rows:
        return lines
    kept = max(rows - 2, 0)
    missing = len(lines) - kept - 1
    more: Line = [(f"  … {missing} more lines; a higher terminal shows them", "dim")]
    return [*lines[:kept], more, lines[-1]][:rows]
