"""What processes print: a folder of bounded files, and reading them by time.

Bound: a file grows to `largest_bytes` plus what is written between two looks, and one older part of about
`largest_bytes` is kept (of a writer as fast as the copy twice that): about 16 MiB for each process. While
control does not run nobody cuts; the next one does at its first look. Files of instances that are gone
stay (they say why) until the same slot is used again and pushes them out.

Times: each look at which a file has grown appends one mark beside it, so that `idi logs`, which reads files
and never asks control, merges several processes as rightly as control itself would. A file that is quiet
costs a look and no write.

The last lines of many files are found from their ends: a merge backwards in time reads of each file only
what is later than the oldest line that is shown.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import re
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path

from idi.parts.errors import PartError
from idi.parts.targets.local.log_file import LogFile
from idi.parts.targets.printed import LogLine

LARGEST_BYTES = 8 * 1024 * 1024
EVERY_S = 1.0
FOLLOW_S = 0.2
_A_STRETCH = 1000
"""Backwards, after so many lines that are not looked for, it is said how far back that was."""

_INSTANCE = re.compile(r"(.+)-\d+\Z")
_log = logging.getLogger(__name__)


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
        troubled: set[str] = set()
        try:
            while True:
                await asyncio.sleep(self._every_s)
                for name in self.sources():
                    try:
                        if self.file(name).look() > self._largest_bytes:
                            await asyncio.to_thread(self.file(name).cut, self._largest_bytes)
                        else:
                            self.file(name).save()
                        troubled.discard(name)
                    except OSError as error:
                        if name not in troubled:  # a full disk stays full for many looks
                            _log.warning("%s cannot be kept bounded: %s", self.path(name), error)
                        troubled.add(name)
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

    def last(self, count: int, since: float = 0.0, *, each: bool = False) -> list[LogLine]:
        """The last lines that `read` would have, in its order; `each`: so many of each module (or part)."""
        names = self._names()
        order = {name: at for at, name in enumerate(names)}
        groups: dict[str, list[str]] = {}
        for name in names:
            self._positions[name] = self._logs.file(name).refresh()
            groups.setdefault((module_of(name) or name) if each else "", []).append(name)
        found = [line for group in groups.values() for line in self._last_of(group, count, since)]
        return sorted(found, key=lambda line: (line.time, order[line.source]))

    async def follow(self) -> AsyncIterator[LogLine]:
        """Lines as they come, from where `read` or `last` ended, or from now. Looks five times a second."""
        for name in self._names():
            self._positions.setdefault(name, self._logs.file(name).end())
        while True:
            for name in self._names():
                end = self._logs.file(name).refresh()
                if self._positions.setdefault(name, 0) == end:
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
        file = self._logs.file(name)
        file.refresh()
        start = file.line_start(file.position(since))
        return (line for line in self._lines(name, start, partial=True) if line.time >= since)

    def _lines(self, name: str, start: int, *, partial: bool) -> Iterator[LogLine]:
        file, module = self._logs.file(name), module_of(name)
        for end, raw in file.lines(start, partial=partial):
            self._positions[name] = end
            if (text := self._chosen(raw)) is not None:
                yield LogLine(file.time(end), name, module, text)

    def _last_of(self, names: list[str], count: int, since: float) -> Iterable[LogLine]:
        # The other way round in all: of lines of one time the last source's come first.
        back = heapq.merge(
            *(self._back(name, since) for name in reversed(names)), key=itemgetter(0), reverse=True
        )
        return reversed(list(islice((line for _, line in back if line is not None), count)))

    def _back(self, name: str, since: float) -> Iterator[tuple[float, LogLine | None]]:
        """From where the source ended when it was refreshed back to a time. A source in which nothing is
        found says now and then how far it is, so that it is not read further than the others need."""
        file, module = self._logs.file(name), module_of(name)
        oldest, passed = file.position(since), 0
        for end, raw in file.lines_back(self._positions[name]):
            if end <= oldest:
                return
            if (text := self._chosen(raw)) is not None:
                time = file.time(end)
                yield time, LogLine(time, name, module, text)
                continue
            passed += 1
            if passed % _A_STRETCH == 0:
                yield file.time(end), None

    def _chosen(self, raw: bytes) -> str | None:
        text = raw.rstrip(b"\r").decode(errors="replace")
        return text if self._grep is None or self._grep.search(text) else None
