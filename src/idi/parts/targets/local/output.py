"""What processes print: a folder of bounded files, and reading them by time.

Bound: a file grows to `largest_bytes` plus what is written between two looks, and one older part of about
`largest_bytes` is kept (of a writer as fast as the copy twice that): about 16 MiB for each process. While
control does not run nobody cuts; the next one does at its first look. Files of instances that are gone
stay (they say why) until the same slot is used again and pushes them out.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import re
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from idi.parts.errors import PartError
from idi.parts.targets.local.log_file import LogFile

LARGEST_BYTES = 8 * 1024 * 1024
EVERY_S = 1.0
SAVE_EVERY = 30
"""Marks are written down at every so many looks."""
FOLLOW_S = 0.2

_INSTANCE = re.compile(r"(.+)-\d+\Z")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogLine:
    """`source` is an instance (`jede-1`), its sidecar (`jede-1.sidecar`) or a part (`openbao`);
    `module` is empty for what is not a module's own output. `time` says by when it was written."""

    time: float
    source: str
    module: str
    line: str


def module_of(source: str) -> str:
    """The module whose own output a source is, or nothing."""
    match = _INSTANCE.match(source)
    return match[1] if match else ""


class Logs:
    """The log files of one target."""

    def __init__(self, directory: Path, largest_bytes: int = LARGEST_BYTES, every_s: float = EVERY_S) -> None:
        self._directory = directory
        self._largest_bytes = largest_bytes
        self._every_s = every_s
        self._files: dict[str, LogFile] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PartError(f"{directory} cannot be made: {error.strerror}.") from error

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def last_lines(self, name: str, count: int, since: int = 0) -> list[str]:
        """The last lines of one process from a position on, as far as they lie within the last 64 KiB."""
        return self.file(name).tail(count, since=since)

    def sources(self) -> list[str]:
        """Everything that ever printed here."""
        return sorted(name[: -len(".log")] for name in os.listdir(self._directory) if name.endswith(".log"))

    def file(self, name: str) -> LogFile:
        if name not in self._files:
            self._files[name] = LogFile(self.path(name))
        return self._files[name]

    def reader(self, sources: Collection[str] | None = None, grep: re.Pattern[str] | None = None) -> Reader:
        """Read these sources; None: the modules' own output, also of instances that come later."""
        return Reader(self, sources, grep)

    async def keep_bounded(self) -> None:
        """Note lengths and cut what is too long, until cancelled."""
        looks = 0
        try:
            while True:
                await asyncio.sleep(self._every_s)
                looks += 1
                for name in self.sources():
                    try:
                        if self.file(name).look() > self._largest_bytes:
                            await asyncio.to_thread(self.file(name).cut, self._largest_bytes)
                        elif looks % SAVE_EVERY == 0:
                            self.file(name).save()
                    except OSError as error:
                        _log.warning("%s cannot be kept bounded: %s", self.path(name), error)
        finally:
            for file in self._files.values():
                try:
                    file.look()
                    file.save()
                except OSError as error:
                    _log.warning("the times of lines in %s are lost: %s", file.path, error)


class Reader:
    """Reads what is there, then what comes. Not for concurrent use."""

    def __init__(self, logs: Logs, sources: Collection[str] | None, grep: re.Pattern[str] | None) -> None:
        self._logs = logs
        self._sources = sources
        self._grep = grep
        self._positions: dict[str, int] = {}

    def read(self, since: float = 0.0) -> Iterator[LogLine]:
        """Every line written at or after `since`, all sources in order of time. Blocks on files."""
        yield from heapq.merge(*(self._of(name, since) for name in self._names()), key=lambda line: line.time)

    async def follow(self) -> AsyncIterator[LogLine]:
        """Lines as they come, from where `read` ended, or from now. Looks five times a second."""
        for name in self._names():
            self._positions.setdefault(name, self._logs.file(name).end())
        while True:
            for name in self._names():
                file = self._logs.file(name)
                if self._positions.setdefault(name, 0) == file.end():
                    continue
                for line in self._lines(name, self._positions[name], partial=False):
                    yield line
            await asyncio.sleep(FOLLOW_S)

    def _names(self) -> list[str]:
        known = self._logs.sources()
        if self._sources is None:
            return [name for name in known if module_of(name)]
        return [name for name in known if name in self._sources]

    def _of(self, name: str, since: float) -> Iterator[LogLine]:
        start = self._logs.file(name).position(since)
        return (line for line in self._lines(name, start, partial=True) if line.time >= since)

    def _lines(self, name: str, start: int, *, partial: bool) -> Iterator[LogLine]:
        file, module = self._logs.file(name), module_of(name)
        for end, raw in file.lines(start, partial=partial):
            self._positions[name] = end
            text = raw.rstrip(b"\r").decode(errors="replace")
            if self._grep is None or self._grep.search(text):
                yield LogLine(file.time(end), name, module, text)
