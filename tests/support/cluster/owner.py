"""Who owns a cluster: one process, as long as it holds the cluster's lock.

The kernel lets go of a lock when its holder ends, however it does, and the cluster's processes end with it as well. So
a folder whose lock is free is what a killed run left: its cgroups and files, which the next start clears away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from pathlib import Path

from tests.support.cluster import cgroups
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import Layout, cache

LOOK_S = 0.05


class Owned:
    """The lock, held."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._descriptor = _take(layout)
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def clear(self) -> None:
        """End what is left of the cluster's processes, remove its cgroups and its folder."""
        if left := cgroups.end(self.layout.cgroup):
            raise ClusterError(f"{self.layout.name}: processes do not end: {sorted(left)}")
        if stuck := cgroups.remains(self.layout.cgroup):
            raise ClusterError(f"{self.layout.name}: cgroups can't be removed: {stuck}")
        inside = f" {self.layout.folder}/"
        if mounted := [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if inside in line
        ]:
            # Deleting through a mount would delete what is mounted.
            raise ClusterError(f"{self.layout.name}: still mounted: {mounted}")
        if self.layout.folder.exists():
            shutil.rmtree(self.layout.folder)

    def release(self) -> None:
        """Let go of it; the file goes first, while nobody else can hold it."""
        if self._descriptor >= 0:
            self.layout.lock.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


class Taken(ClusterError):
    """Somebody else has it."""


def _take(layout: Layout) -> int:
    layout.lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        opened = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(opened)
            raise Taken(f"a cluster {layout.name!r} is up already") from error
        try:
            # A holder that ended removed this very file: the lock on it keeps nobody out.
            if os.fstat(opened).st_ino == layout.lock.stat().st_ino:
                return opened
        except FileNotFoundError:
            pass
        os.close(opened)


def names() -> set[str]:
    """Of every cluster that is up or has left something."""
    folder = cache() / "clusters"
    return {path.stem for path in folder.glob("*") if path.suffix == ".lock" or path.is_dir()}


def sweep() -> list[str]:
    """Clear away every cluster whose owner is gone; their names."""
    swept = []
    for name in sorted(names()):
        layout = Layout(name)
        try:
            owned = Owned(layout)
        except Taken:
            continue
        try:
            owned.clear()
            swept.append(layout.name)
        finally:
            owned.release()
    return swept


def owner(layout: Layout) -> int | None:
    """The pid of the process that has it."""
    try:
        opened = _take(layout)
    except Taken:
        try:
            return int(layout.lock.read_text())
        except (OSError, ValueError):
            return None
    os.close(opened)
    return None


def end(layout: Layout, timeout_s: float = 30.0) -> bool:
    """Have its owner take it down, or do it oneself; whether there was anything."""
    there = layout.folder.exists() or bool(cgroups.remains(layout.cgroup))
    for sent in (signal.SIGTERM, signal.SIGKILL):
        pid = owner(layout)
        if pid is None:
            break
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            break
        try:
            # Only now is the number sure to be the owner's: it still has the lock.
            if owner(layout) == pid:
                signal.pidfd_send_signal(process, sent)
            deadline = time.monotonic() + timeout_s
            while owner(layout) == pid and time.monotonic() < deadline:
                time.sleep(LOOK_S)
        finally:
            os.close(process)
    owned = Owned(layout)
    try:
        owned.clear()
    finally:
        owned.release()
    return there
