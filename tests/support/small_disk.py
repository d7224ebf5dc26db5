"""A disk of its own for one folder, small enough to fill: a tmpfs in a private mount namespace. Needs root.

Whoever is to see that disk is run by `wrapper`; for everybody else the folder is as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.platform import Platform


def possible() -> bool:
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


class Namespace:
    """`folder` is on the small disk, for whoever is run by `wrapper` (in `work`, else there); it begins with what lies
    in it."""

    def __init__(self, pid: int, folder: Path, size: str, work: Path | None = None) -> None:
        self.pid = pid
        self.folder = folder
        # A module's files are found by its working directory, which has to be entered anew in there.
        enter = ("nsenter", "-t", str(pid), "-m", "--")
        self.wrapper = (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(work or folder))
        before = folder.with_name(f"{folder.name}.before")
        shutil.copytree(folder, before, symlinks=True)
        self._in(*enter, "mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder))
        self._in(*enter, "cp", "-a", f"{before}/.", str(folder))

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._in(*self.wrapper, *command, check=check)

    def fill(self) -> None:
        """To the last block."""
        for size in ("64k", "1k"):
            self.run("dd", "if=/dev/zero", f"of={self.folder}/fill-{size}", f"bs={size}", check=False)

    def make_room(self) -> None:
        self.run("rm", "-f", *(f"{self.folder}/fill-{size}" for size in ("64k", "1k")))

    def _in(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=check, cwd="/")


def broker_disk(pid: int, one: Platform, size: str) -> Namespace:
    """A disk for what the broker of this platform keeps; before its first `up`."""
    store = one.paths.state / "data" / "bus"
    store.mkdir(parents=True, mode=0o700)
    one.paths.state.chmod(0o700)
    disk = Namespace(pid, store, size, one.folder)
    one.wrapper = disk.wrapper
    return disk


@contextmanager
def holder() -> Iterator[int]:
    """A process that keeps a mount namespace: its pid."""
    process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "3600"])
    try:
        own = os.readlink("/proc/self/ns/mnt")
        for _ in range(200):
            if os.readlink(f"/proc/{process.pid}/ns/mnt") != own:
                break
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()
