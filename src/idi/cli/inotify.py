"""Which files below some folders were written, as the kernel tells it (inotify, by the C library).

Folders that come later are watched, too, and what lies in them already counts as written. Where the kernel had to drop
something, `lost` is set: then anything may have changed. `problem` says that some folder is not watched, and why.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator

from idi.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, ONLYDIR, ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
WANTED = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | ONLYDIR
HEAD = struct.Struct("iIII")
CHUNK = 64 * 1024
MOST_FOLDERS = 10_000


class Watcher:
    """`skips` says of a folder's path that nothing in it is of interest."""

    ended = False

    def __init__(self, skips: Callable[[str], bool]) -> None:
        self.lost = False
        self.problem: Failure | None = None
        self._skips = skips
        self._library = ctypes.CDLL(None, use_errno=True)
        self._folders: dict[int, str] = {}
        try:
            self._number = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            raise Failure("Saved files cannot be noticed on this system: it has no inotify.") from None
        if self._number < 0:
            raise self._failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def fileno(self) -> int:
        return int(self._number)

    def watch(self, roots: Iterable[str]) -> None:
        """These folders with all below them, from now on. What is watched already stays so."""
        known = set(self._folders.values())
        for root in roots:
            for folder in self._below(root):
                if folder not in known:
                    self._add(folder)

    def ready(self) -> list[str]:
        """Paths of files that were written, moved or removed, without waiting."""
        found: list[str] = []
        while True:
            try:
                data = os.read(self._number, CHUNK)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                number, mask, _, length = HEAD.unpack_from(data, at)
                name = os.fsdecode(data[at + HEAD.size : at + HEAD.size + length].rstrip(b"\0"))
                at += HEAD.size + length
                found += self._happened(number, mask, name)

    def _happened(self, number: int, mask: int, name: str) -> Iterator[str]:
        if mask & OVERFLOW:
            self.lost = True
        elif mask & IGNORED:
            self._folders.pop(number, None)
        elif (folder := self._folders.get(number)) is not None:
            path = os.path.join(folder, name)
            if not mask & ISDIR:
                if not mask & CREATE:  # what was created is written next
                    yield path
            elif mask & (CREATE | MOVED_TO) and not self._skips(path):
                for below in self._below(path):
                    self._add(below)
                    yield from (one.path for one in entries(below) if one.is_file())

    def _below(self, root: str) -> Iterator[str]:
        if not os.path.isdir(root):
            return
        left = [root]
        while left:
            folder = left.pop()
            yield folder
            left += [
                one.path
                for one in entries(folder)
                if one.is_dir(follow_symlinks=False) and not self._skips(one.path)
            ]

    def _add(self, folder: str) -> None:
        if len(self._folders) >= MOST_FOLDERS:
            self.problem = Failure(
                f"There are more than {MOST_FOLDERS} folders to watch.",
                way_out="Declare watch: for the modules, with the folders that matter.",
            )
            return
        number = self._library.inotify_add_watch(self._number, os.fsencode(folder), WANTED)
        if number >= 0:
            self._folders[number] = folder
        elif ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            self.problem = self._failure()

    @staticmethod
    def _failure() -> Failure:
        why = os.strerror(ctypes.get_errno())
        return Failure(
            "Saved files cannot be noticed.",
            f"The kernel says: {why}.",
            "Its limits are in /proc/sys/fs/inotify; watch: in the declaration names fewer folders.",
        )


def entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # it went meanwhile, or is somebody else's
        return []
