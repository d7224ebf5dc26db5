"""Lines of logs as they are shown: their source before them, and nothing in them that moves the cursor."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from idi.cli.terminal.screen import Line, Screen, painted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.offline import LogLine

PALETTE = ("cyan", "green", "yellow", "magenta", "blue", "red")
COLOURS = re.compile(r"\x1b\[[\d;:]*m")
CONTROLS = re.compile(r"\x1b\[[\d;:]*m|\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Shown(NamedTuple):
    time: float
    source: str
    module: str
    line: str


class Printer:
    """Lines with their source before them: aligned, and in a colour of the module's own on a terminal."""

    def __init__(self, screen: Screen, sources: Mapping[str, str], *, show_time: bool) -> None:
        self._screen = screen
        self._show_time = show_time
        self._width = max((len(name) for name, module in sources.items() if module), default=0)
        families = sorted({module or name for name, module in sources.items()})
        self._colours = {name: PALETTE[at % len(PALETTE)] for at, name in enumerate(families)}

    def show(self, line: LogLine | Shown) -> None:
        if self._screen.as_json:
            self._screen.document(
                {"time": rfc3339(line.time), "source": line.source, "module": line.module, "line": line.line},
                flush=False,
            )
            return
        print(self.text(line))

    def text(self, line: LogLine | Shown) -> str:
        family = line.module or line.source.partition(".")[0].rpartition("-")[0] or line.source
        colour = self._colours.setdefault(family, PALETTE[len(self._colours) % len(PALETTE)])
        self._width = max(self._width, len(line.source))
        head: Line = [(f"{line.source:<{self._width}} ", colour), ("| ", "dim")]
        if self._show_time:
            head = [(time.strftime("%H:%M:%S ", time.localtime(line.time)), "dim"), *head]
        return painted(head, colour=self._screen.colour) + safe(line.line, colour=self._screen.colour)

    def flush(self) -> None:
        import sys

        sys.stdout.flush()


def safe(text: str, *, colour: bool) -> str:
    """Without what would move the cursor; colours stay on a terminal, and end with the line."""
    if "\x1b" not in text and text.isprintable():
        return text
    kept = CONTROLS.sub(lambda found: found[0] if colour and COLOURS.fullmatch(found[0]) else "", text)
    return kept + "\x1b[0m" if "\x1b" in kept else kept


def rfc3339(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
