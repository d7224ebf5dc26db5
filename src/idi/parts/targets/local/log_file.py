"""One bounded log file, to which a process appends by itself.

The writer holds the file open with O_APPEND and goes on when control does not live. Past the bound the
file is copied aside and cut to nothing under the writer's hands: its next line lands at the new end. What
it writes between the last copied byte and the cut, mostly microseconds, is lost; that is the price of not
sitting in a pipe.

Lines carry no time of their own. Control looks at the file now and then and notes its length with the
time of its last change (`marks`), so a line's time is the first noted one at or after its end: within a
second while control looks, coarser where it did not. Positions are counted from the first byte ever
written, so that a reader who follows is not confused by a cut.
"""

from __future__ import annotations

import bisect
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

LONGEST_LINE = 64 * 1024
MOST_MARKS = 2000
_CHUNK = 256 * 1024


class LogFile:
    """`path` and its older part `path.1`. The lock is held for one chunk or one cut at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.older = path.with_name(f"{path.name}.1")
        self._lock = threading.Lock()
        self._base = 0
        self._ends: list[int] = []
        self._times: list[float] = []
        self._changed = False
        self._load()

    # --- the side of control

    def look(self) -> int:
        """Note how long it is; answers its size."""
        try:
            status = self.path.stat()
        except OSError:
            return 0
        with self._lock:
            end = self._base + status.st_size
            if not self._ends or end > self._ends[-1]:
                last = self._times[-1] if self._times else 0.0
                self._ends.append(end)
                self._times.append(max(last, status.st_mtime))
                self._changed = True
                if len(self._ends) > MOST_MARKS:
                    # The older half gets coarser, what is recent stays as it is.
                    half = MOST_MARKS // 2
                    self._ends[:half], self._times[:half] = self._ends[1:half:2], self._times[1:half:2]
        return status.st_size

    def cut(self, largest_bytes: int) -> None:
        """Copy the last `largest_bytes`, and what comes meanwhile up to as much again, aside and empty
        the file. May take some milliseconds."""
        beside = self.path.with_name(f"{self.path.name}.new")
        with (
            self._lock,
            open(self.path, "r+b", buffering=0) as source,
            open(beside, "wb", buffering=0, opener=_private) as copy,
        ):
            source.seek(max(0, source.seek(0, os.SEEK_END) - largest_bytes))
            copied = 0
            # A writer that is faster than the copy must not keep it busy for ever.
            while copied < 2 * largest_bytes and (chunk := source.read(_CHUNK)):
                copied += copy.write(chunk)
            end = source.tell()
            source.truncate(0)
            beside.rename(self.older)
            self._base += end
            first = bisect.bisect_left(self._ends, self._base - largest_bytes)
            del self._ends[:first], self._times[:first]
            self._changed = True
        self.save()

    def save(self) -> None:
        """Keep the marks for the next control."""
        with self._lock:
            if not self._changed:
                return
            text = json.dumps({"base": self._base, "marks": list(zip(self._ends, self._times, strict=True))})
            self._changed = False
        path = self._marks_path()
        beside = path.with_name(f"{path.name}.new")
        with open(beside, "w", encoding="ascii", opener=_private) as file:
            file.write(text)
        beside.rename(path)

    # --- the side of readers

    def end(self) -> int:
        """The position after the last byte."""
        with self._lock:
            return self._base + _size(self.path)

    def position(self, since: float) -> int:
        """Where lines begin that may have been written at or after a time."""
        with self._lock:
            place = bisect.bisect_left(self._times, since)
            return self._ends[place - 1] if place else 0

    def chunk(self, position: int) -> tuple[int, bytes]:
        """Bytes from a position on, and where they begin: later than asked where something is gone."""
        with self._lock:
            older_size = _size(self.older)
            position = max(position, self._base - older_size)
            inside_older = position < self._base
            path, start = (self.older, self._base - older_size) if inside_older else (self.path, self._base)
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(position - start)
                    return position, file.read(_CHUNK)
            except OSError:
                return position, b""

    def time(self, position: int) -> float:
        """By when what ends at a position was written."""
        with self._lock:
            place = bisect.bisect_left(self._ends, position)
            if place < len(self._times):
                return self._times[place]
            last = self._times[-1] if self._times else 0.0
        try:
            return max(last, self.path.stat().st_mtime)
        except OSError:
            return last

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

    def tail(self, count: int, size: int = LONGEST_LINE, since: int = 0) -> list[str]:
        """The last lines from a position on, as far as they lie within the last `size` bytes."""
        start = max(since, self.end() - size)
        lines = [line.decode(errors="replace") for _, line in self.lines(start, partial=True)]
        # Somewhere in the middle the first one is only the end of a line.
        return lines[max(start > since, len(lines) - count) :] if count > 0 else []

    # --- within

    def _marks_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.marks")

    def _load(self) -> None:
        try:
            document = json.loads(self._marks_path().read_text(encoding="ascii"))
            self._base = int(document["base"])
            self._ends = [int(end) for end, _ in document["marks"]]
            self._times = [float(time) for _, time in document["marks"]]
        except (OSError, ValueError, KeyError, TypeError):
            self._base = _size(self.older)  # without marks a line has the time of the file's last change
            return
        if self._ends and self._base + _size(self.path) < self._ends[-1]:
            self._base = self._ends[-1]  # it was cut, and control killed before it could note that


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
