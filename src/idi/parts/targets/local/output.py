"""What processes print, in files of bounded size.

A process appends to its file itself (the descriptor is its own, opened with O_APPEND), so it goes on
when control does not live. Past the bound the file is copied aside and cut to nothing while the writer
goes on: with O_APPEND its next line lands at the new end. What it writes in the few microseconds between
the last copied byte and the cut is lost; that is the price of not sitting in a pipe.

Bound: a file grows to `largest_bytes` plus what is written between two looks (`every_s`), and one older
file of at most `largest_bytes` is kept. So about 16 MiB for each process by default.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

LARGEST_BYTES = 8 * 1024 * 1024
EVERY_S = 2.0
_CHUNK = 1024 * 1024


class Logs:
    """The log files of one target."""

    def __init__(self, directory: Path, largest_bytes: int = LARGEST_BYTES, every_s: float = EVERY_S) -> None:
        self._directory = directory
        self._largest_bytes = largest_bytes
        self._every_s = every_s
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def older(self, name: str) -> Path:
        return self._directory / f"{name}.log.1"

    def last_lines(self, name: str, count: int) -> list[str]:
        """The last lines, as far as they lie within the last 64 KiB."""
        lines: list[str] = []
        for path in (self.path(name), self.older(name)):
            lines = _tail(path) + lines
            if len(lines) >= count:
                break
        return lines[-count:] if count > 0 else []

    async def keep_bounded(self) -> None:
        """Look at the sizes until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            for path in self._too_large():
                await asyncio.to_thread(self._cut, path)

    def _too_large(self) -> list[Path]:
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(".log") and entry.stat().st_size > self._largest_bytes:
                    found.append(Path(entry.path))
        return found

    def _cut(self, path: Path) -> None:
        """Copy the last `largest_bytes` aside and empty the file."""
        older = path.with_name(f"{path.name}.1")
        beside = path.with_name(f"{path.name}.new")
        with (
            open(path, "r+b", buffering=0) as source,
            open(beside, "wb", buffering=0, opener=_private) as copy,
        ):
            source.seek(max(0, source.seek(0, os.SEEK_END) - self._largest_bytes))
            while chunk := source.read(_CHUNK):
                copy.write(chunk)
            source.truncate(0)
        beside.rename(older)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tail(path: Path, size: int = 64 * 1024) -> list[str]:
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    return lines[1:] if end > size else lines
