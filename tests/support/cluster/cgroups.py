"""The cluster's branch of every cgroup tree (version 1: a tree for each controller).

Whatever a group starts is in it from its first instruction, so it tells which processes are the cluster's
whoever their parent is, and ending all of them needs no list of pids.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
ENDED_S = 20.0
LOOK_S = 0.02
CPUS = ("cpuset.cpus", "cpuset.mems")
COMPONENTS = "pids"
"""The tree in which the components themselves are; a pod's processes are in all of them."""


def trees() -> list[Path]:
    """One for each controller of version 1."""
    return [path for path in sorted(ROOT.iterdir()) if path.is_dir() and path.name != "unified"]


def there() -> bool:
    return (ROOT / "memory" / "cgroup.procs").exists() and (ROOT / COMPONENTS / "cgroup.procs").exists()


def make(branch: str) -> None:
    """Make it in every tree; in a new cpuset nothing may run before it has processors and memory."""
    for tree in trees():
        path = tree
        for part in Path(branch).parts:
            path = path / part
            path.mkdir(exist_ok=True)
            if tree.name == "cpuset":
                for name in CPUS:
                    (path / name).write_text((path.parent / name).read_text())


def component(branch: str) -> list[str]:
    """Where a component's pid 1 puts itself."""
    path = ROOT / COMPONENTS / branch
    path.mkdir(parents=True, exist_ok=True)
    return [str(path)]


def processes(branch: str) -> set[int]:
    found: set[int] = set()
    for path in _paths(branch):
        try:
            found |= {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
        except OSError:
            continue
    # 0 stands for a process that this pid namespace can't see.
    return found - {0}


def end(branch: str) -> set[int]:
    """End every process in the branch and remove it; the processes that would not end."""
    deadline = time.monotonic() + ENDED_S
    while (left := processes(branch)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(LOOK_S)
    for path in _paths(branch):
        # The kernel takes a moment after the last process before it lets go of its group.
        while path.exists() and time.monotonic() < deadline:
            try:
                path.rmdir()
            except OSError:
                time.sleep(LOOK_S)
    return left


def remains(branch: str) -> list[Path]:
    return list(_paths(branch))


def _paths(branch: str) -> Iterator[Path]:
    """Deepest first."""
    for tree in sorted(ROOT.iterdir()):
        if (tree / branch).is_dir():
            for path, _, _ in os.walk(tree / branch, topdown=False):
                yield Path(path)
