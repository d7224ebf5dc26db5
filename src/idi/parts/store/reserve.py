"""Disk space held back for the changes that have to work on a full disk.

A file of real blocks. When the disk is full it gives back one slice at a time, about what one transaction
needs: what filled the disk (a module that logs without end) goes on filling it and takes whatever is left over.
It is filled again as soon as there is room for it. How much it holds *is* the state: a journal whose reserve is
not whole is degraded, after a restart too.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from idi.parts.store.files import free_bytes

RESERVE_BYTES = 4 << 20
SLICE_BYTES = 32 << 10
_CHUNK = 1 << 16
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def held(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def absent(self) -> bool:
        """Never made, which is no sign of a full disk: an empty one is."""
        return not self._path.exists()

    def whole(self) -> bool:
        return self.held() >= self._size

    def fill(self) -> bool:
        """Make it whole if that leaves some room beside it; whether it is whole."""
        held = self.held()
        if held >= self._size:
            return True
        if free_bytes(self._path.parent) < self._size - held + self._size // 4:
            return False
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            # Bytes that no file system compresses or leaves out.
            noise = os.urandom(_CHUNK)
            for at in range(held, self._size, _CHUNK):
                os.pwrite(handle, noise[: self._size - at], at)
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            os.ftruncate(handle, held)
        finally:
            os.close(handle)
        return self.whole()

    def give_back(self) -> bool:
        """Free one slice; False when there is nothing left to give."""
        held = self.held()
        if held == 0:
            return False
        os.truncate(self._path, max(0, held - SLICE_BYTES))
        return True


def is_full(error: OSError) -> bool:
    return error.errno in _NO_ROOM
