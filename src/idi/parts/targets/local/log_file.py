"""One bounded log file, to which a process appends by itself.

The writer holds the file open with O_APPEND and goes on when control does not live. Past the bound the
file is copied aside and cut to nothing under the writer's hands: its next line lands at the new end. What
it writes between the last copied byte and the cut, mostly microseconds, is lost; that is the price of not
sitting in a pipe.

Lines carry no time of their own. Control looks at the file every second and notes its length with the time
of its last change (`marks`), so a line's time is the first noted one at or after its end: within a second
while control looks, coarser where it did not. Positions are counted from the first byte ever written, so
that a reader who follows is not confused by a cut. A reader in another process takes what control noted
from the file of marks (`refresh`); what came after that has the time of the file's last change.

Reading backwards begins with a small piece and goes on with larger ones, so that the last lines of a large
file cost what those lines cost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from idi.parts.clients import private_file
from idi.parts.targets.local.marks import Marks

LONGEST_LINE = 64 * 1024
_CHUNK = 256 * 1024
_FIRST_CHUNK = 16 * 1024
_MOST_HELD = 64 * LONGEST_LINE
"""Backwards, what is longer and has no end of a line in it is taken for lines of their own."""


class LogFile:
    """`path` and its older part `path.1`. The lock is held for one chunk or one cut at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.older = path.with_name(f"{path.name}.1")
        self._lock = threading.Lock()
        self._marks = Marks(path.with_name(f"{path.name}.marks"))
        self._keeps = False
        """This is the process that looks and cuts: what it knows is newer than the file of marks."""
        self._load()

    # --- the side of control

    def look(self) -> int:
        """Note how long it is; answers its size. `save` writes it down."""
        with self._lock:
            self._keeps = True
            return self._note()

    def cut(self, largest_bytes: int) -> None:
        """Copy the last `largest_bytes`, and what comes meanwhile up to as much again, aside and empty
        the file. May take some milliseconds."""
        beside = self.path.with_name(f"{self.path.name}.new")
        with (
            self._lock,
            open(self.path, "r+b", buffering=0) as source,
            open(beside, "wb", buffering=0, opener=private_file.opener) as copy,
        ):
            self._keeps = True
            source.seek(max(0, source.seek(0, os.SEEK_END) - largest_bytes))
            copied = 0
            # A writer that is faster than the copy must not keep it busy for ever.
            while copied < 2 * largest_bytes and (chunk := source.read(_CHUNK)):
                copied += copy.write(chunk)
            end = source.tell()
            source.truncate(0)
            beside.rename(self.older)
            base = self._marks.base + end
            self._marks.rebase(base, base - largest_bytes)
        self.save()

    def save(self) -> None:
        """Write down what was noted, for readers elsewhere and for the next control."""
        with self._lock:
            self._marks.save()

    # --- the side of readers

    def refresh(self) -> int:
        """Take what another process noted meanwhile; the position after the last byte."""
        with self._lock:
            if not self._keeps:
                if self._marks.changed():
                    self._load()
                self._note()
            return self._marks.base + _size(self.path)

    def end(self) -> int:
        """The position after the last byte."""
        with self._lock:
            return self._marks.base + _size(self.path)

    def position(self, since: float) -> int:
        """A line that ends after it may have been written at or after a time; one that ends before was not."""
        with self._lock:
            return self._marks.position(since)

    def line_start(self, position: int) -> int:
        """Where the line begins that goes on at a position."""
        begin = position
        while position - begin <= _MOST_HELD and (before := self.chunk_before(begin, LONGEST_LINE)):
            begin -= len(before)
            if (found := before.rfind(b"\n")) >= 0:
                return begin + found + 1
        return begin

    def chunk(self, position: int) -> tuple[int, bytes]:
        """Bytes from a position on, and where they begin: later than asked where something is gone."""
        with self._lock:
            older_size = _size(self.older)
            base = self._marks.base
            position = max(position, base - older_size)
            path, start = (self.older, base - older_size) if position < base else (self.path, base)
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(position - start)
                    return position, file.read(_CHUNK)
            except OSError:
                return position, b""

    def chunk_before(self, position: int, size: int) -> bytes:
        """At most so many bytes right before a position; none where nothing is kept of them."""
        with self._lock:
            older_size = _size(self.older)
            base = self._marks.base
            path, start = (self.path, base) if position > base else (self.older, base - older_size)
            first = max(start, position - size)
            if first >= position:
                return b""
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(first - start)
                    read = file.read(position - first)
            except OSError:
                return b""
        return read if len(read) == position - first else b""  # shorter: it is being cut

    def time(self, position: int) -> float:
        """By when what ends at a position was written."""
        with self._lock:
            noted = self._marks.time(position)
        if noted is not None:
            return noted
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def lines(self, position: int, *, partial: bool) -> Iterator[tuple[int, bytes]]:
        """Lines from a position on, each with the position after it. `partial`: also a last one that
        has no end yet."""
        held = b""
        while True:
            begin, read = self.chunk(position + len(held))
            if not read:
                break
            if begin != position + len(held):  # something between was cut away
                position, held = begin, b""
            *whole, held = (held + read).split(b"\n")
            for line in whole:
                while len(line) > LONGEST_LINE:
                    position += LONGEST_LINE
                    yield position, line[:LONGEST_LINE]
                    line = line[LONGEST_LINE:]
                position += len(line) + 1
                yield position, line
            while len(held) > LONGEST_LINE:
                position += LONGEST_LINE
                yield position, held[:LONGEST_LINE]
                held = held[LONGEST_LINE:]
        if held and partial:
            yield position + len(held), held

    def lines_back(self, end: int) -> Iterator[tuple[int, bytes]]:
        """The same lines as `lines` has (also a last one that has no end yet), from a position back."""
        held, begin, size, whole = b"", end, _FIRST_CHUNK, 0
        # `held` is the last part of a line whose beginning was not read yet, and `whole` 1 once such a line
        # has its newline behind it: then `end` is the position after that.
        while len(held) <= _MOST_HELD and (chunk := self.chunk_before(begin, size)):
            begin -= len(chunk)
            size = min(2 * size, _CHUNK)
            held, *lines = (chunk + held).split(b"\n")
            for line in reversed(lines):
                if 0 < len(line) <= LONGEST_LINE:
                    yield end, line
                else:
                    yield from _pieces_back(line, end, whole)
                end -= len(line) + whole
                whole = 1
        yield from _pieces_back(held, end, whole)

    def tail(self, count: int, size: int = LONGEST_LINE, since: int = 0) -> list[str]:
        """The last lines from a position on, as far as they lie within the last `size` bytes."""
        start = max(since, self.end() - size)
        lines = [line.decode(errors="replace") for _, line in self.lines(start, partial=True)]
        # Somewhere in the middle the first one is only the end of a line.
        return lines[max(start > since, len(lines) - count) :] if count > 0 else []

    # --- within

    def _note(self) -> int:
        try:
            status = self.path.stat()
        except OSError:
            return 0
        self._marks.note(self._marks.base + status.st_size, status.st_mtime_ns)
        return status.st_size

    def _load(self) -> None:
        if not self._marks.load():
            self._marks.base = _size(self.older)  # a line then has the time of the file's last change
        elif self._marks.base + _size(self.path) < self._marks.last:
            self._marks.base = self._marks.last  # it was cut, and control killed before it could note that


def _pieces_back(line: bytes, end: int, whole: int) -> Iterator[tuple[int, bytes]]:
    """A line as `lines` gives it, from the back: in pieces where it is too long."""
    if not line and not whole:
        return
    first = (max(len(line), 1) - 1) // LONGEST_LINE * LONGEST_LINE
    yield end, line[first:]
    begin = end - whole - len(line)
    for at in range(first, 0, -LONGEST_LINE):
        yield begin + at, line[at - LONGEST_LINE : at]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
