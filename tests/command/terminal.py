"""A program in a real pseudo-terminal, and what a person would see there (pyte does the seeing)."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

# The first terminal that the leader of a session opens becomes its controlling one, where Ctrl-C comes from.
TAKE_TERMINAL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Terminal:
    """Start with a command; then `until` something shows, `send` keys, `resize`, and look at `lines`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 100,
        rows: int = 30,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._main, child = os.openpty()
        self._size(child, columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, os.ttyname(child), *command],
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            start_new_session=True,
        )
        self._child = child

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)
        os.close(self._child)

    @staticmethod
    def _size(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def flags(self) -> int:
        """The local modes of the terminal (ECHO and its kin)."""
        found: int = termios.tcgetattr(self._child)[3]
        return found

    @property
    def history(self) -> list[str]:
        """What scrolled out above."""
        return ["".join(row[at].data for at in sorted(row)).rstrip() for row in self.screen.history.top]

    def resize(self, columns: int, rows: int) -> None:
        self._size(self._main, columns, rows)
        self.screen.resize(rows, columns)

    def send(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def feed(self, seconds: float) -> None:
        """Take what is written within this time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not self._once(left):
                return

    def until(self, wanted: str, timeout: float = 15.0) -> str:
        """The screen, once it shows this; fails with the screen where it never does."""
        deadline = time.monotonic() + timeout
        while wanted not in self.text:
            if time.monotonic() > deadline or not self._once(0.05):
                if wanted in self.text:
                    break
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self._once(0.1)
                    assert wanted in self.text, f"{wanted!r} never came; the screen:\n{self.text}"
        return self.text

    def ends(self, timeout: float = 15.0) -> int:
        """The exit code, with everything that was written taken."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on; the screen:\n{self.text}"
            self._once(0.05)
        while self._once(0.05):
            pass
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _once(self, timeout: float) -> bool:
        if not select.select([self._main], [], [], timeout)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._main, 65536)
        except OSError:
            return False
        self.raw += data
        self.stream.feed(data)
        return bool(data)
