"""When the bytes of a log file were written: pairs of a position and a time, in a file beside it.

A mark says: everything before this position was written by this time. Control makes one at each look at
which something is new and appends it at once, sixteen bytes, so that any other process knows the time of
a line as well as control does, and a control that is killed takes no more than one look with it. A look at
which nothing is new writes nothing. The file holds whole records of sixteen bytes and no text: reading all
of it is one copy, and half a record, which only a full disk leaves, is left out and written over.

Bound: `MOST_MARKS` of them, 160 KiB. Past that the newer half stays as it is and the older half is halved,
evenly over the time that it spans: at a line each second everything of the last hour and a quarter, mostly
of the last two and a half, keeps its second, and what is older, up to a day, is right to a minute. The file
is then written anew, as after a cut, and renamed into place: its inode tells readers that it is another one.
"""

from __future__ import annotations

import bisect
import os
from array import array
from pathlib import Path

from idi.parts.clients import private_file

MOST_MARKS = 10_000
_MAGIC = b"IDImark1"
_PAIR = 16


class Marks:
    """The marks of one log file, with `base`, the position at which that file begins. Not locked."""

    def __init__(self, path: Path) -> None:
        self.base = 0
        self._path = path
        self._ends = array("q")
        self._times = array("q")  # nanoseconds, as the file system has them
        self._kept = 0
        """So many are in the file already; -1: it must be written anew."""
        self._seen: tuple[int, int] | None = None

    @property
    def last(self) -> int:
        """The last position that has a mark."""
        return self._ends[-1] if self._ends else 0

    # --- the side of control

    def note(self, end: int, time_ns: int) -> None:
        """Everything before `end` was written by then; nothing is done where that is known."""
        if self._ends and end <= self._ends[-1]:
            return
        self._times.append(max(time_ns, self._times[-1]) if self._times else time_ns)
        self._ends.append(end)
        if len(self._ends) > MOST_MARKS:
            self._thin()

    def rebase(self, base: int, oldest: int) -> None:
        """The file begins at another position, and what lies before `oldest` is gone."""
        self.base = base
        first = bisect.bisect_left(self._ends, oldest)
        del self._ends[:first], self._times[:first]
        self._kept = -1

    def save(self) -> None:
        """Write down what is new; does nothing where nothing is."""
        new = len(self._ends) - self._kept
        if self._kept >= 0 and not new:
            return
        if self._kept < 0:
            self._write_anew()
        else:
            records = self._records(self._kept)
            self._kept = -1  # unless all of it gets there
            with open(self._path, "ab", buffering=0) as file:
                if file.write(records) < len(records):
                    raise OSError(f"no more than a part could be written to {self._path}")
        self._kept = len(self._ends)

    # --- the side of readers

    def load(self) -> bool:
        """Take what the file says; False where there is none that can be read."""
        self._ends, self._times, self._kept, self._seen = array("q"), array("q"), -1, None
        try:
            with open(self._path, "rb", buffering=0) as file:
                raw = file.read()
                self._seen = (os.fstat(file.fileno()).st_ino, len(raw))
        except OSError:
            return False
        if len(raw) < _PAIR or not raw.startswith(_MAGIC):
            return False
        numbers = array("q", raw[len(_MAGIC) : len(raw) - len(raw) % _PAIR])
        self.base, self._ends, self._times = numbers[0], numbers[1::2], numbers[2::2]
        if len(raw) % _PAIR == 0:
            self._kept = len(self._ends)
        return True

    def changed(self) -> bool:
        """Whether somebody wrote the file since it was loaded."""
        try:
            status = self._path.stat()
        except OSError:
            return self._seen is not None
        return self._seen != (status.st_ino, status.st_size)

    def time(self, position: int) -> float | None:
        """By when what ends at a position was written; None after the last mark."""
        place = bisect.bisect_left(self._ends, position)
        return self._times[place] / 1e9 if place < len(self._times) else None

    def position(self, since: float) -> int:
        """What ends after it was written at or after a time, what ends before it was not."""
        place = bisect.bisect_left(self._times, since, key=lambda time: time / 1e9)
        return self._ends[place - 1] if place else 0

    # --- within

    def _thin(self) -> None:
        half = MOST_MARKS // 2
        times = self._times[:half]
        width = (times[-1] - times[0]) // (half // 2) + 1
        while len(kept := _spread(times, width)) > half // 2:
            width += width // 4 + 1
        self._ends[:half] = array("q", [self._ends[place] for place in kept])
        self._times[:half] = array("q", [times[place] for place in kept])
        self._kept = -1

    def _records(self, first: int) -> bytes:
        pairs = array("q", bytes(_PAIR * (len(self._ends) - first)))
        pairs[0::2], pairs[1::2] = self._ends[first:], self._times[first:]
        return pairs.tobytes()

    def _write_anew(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with open(beside, "wb", opener=private_file.opener) as file:
            file.write(_MAGIC + array("q", [self.base]).tobytes() + self._records(0))
        beside.rename(self._path)


def _spread(times: array[int], width: int) -> list[int]:
    """Places of as few as can be of which neighbours are not further apart than that (or were already)."""
    kept = [0]
    before = times[0]
    for place in range(1, len(times) - 1):
        if times[place + 1] - before > width:
            kept.append(place)
            before = times[place]
    return [*kept, len(times) - 1]
