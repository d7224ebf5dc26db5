"""Files beside the database: written whole or not at all, held by one process, readable by the owner alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from idi.parts.errors import PartError, Refused

SEED_BYTES = 32


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter; one that is there keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file so that a crash at any moment leaves the old one or the new one, and so that the new one
    is durable when this returns: a temporary file, fsync, rename, fsync of the folder."""
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(new, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class Lock:
    """One process at a time: flock, which the kernel releases however the process ends."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise Refused(
                f"The journal {path.parent} is open in another process (pid {holder}).",
                "Use that one, or end it first.",
            ) from None
        try:
            # In place and never longer than before in blocks: it works on a full disk too.
            os.pwrite(self._handle, f"{os.getpid():<31}\n".encode(), 0)
        except OSError:
            pass  # only the message of a second process is poorer for it

    def release(self) -> None:
        os.close(self._handle)


def log_seed(key_dir: Path, *, make: bool) -> bytes:
    """The 32 secret bytes of the log's key, from `log-key`; made (0600) on first use where `make` says so."""
    path = key_dir / "log-key"
    data = read_if_there(path)
    if data is None and make:
        make_folder(key_dir)
        write_whole(path, os.urandom(SEED_BYTES).hex().encode() + b"\n")
        data = path.read_bytes()
    if data is None:
        raise Refused(
            f"The key {path} that signs the audit log is missing.",
            f"Put it back from a backup: {path}.",
        )
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Refused(f"The key {path} can be read by others (mode {mode:o}).", f"Close it: chmod 600 {path}")
    try:
        seed = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise Refused(f"The key {path} is damaged.", f"Put it back from a backup: {path}.")
    return seed


def free_bytes(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise PartError(f"{folder} cannot be looked at: {error.strerror}.") from error
    return status.f_bavail * status.f_frsize
