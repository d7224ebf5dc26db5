"""Files that only their owner may read, whole or not at all.

0600 from the first byte (never opened wider and narrowed later), written beside, on disk, then renamed,
and the folder on disk as well: when `write` returns, the content survives a power cut.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from idi.parts.errors import PartError


def opener(path: str, flags: int) -> int:
    """For `open`, where what is written need not be whole: 0600 from the first byte, too."""
    return os.open(path, flags, 0o600)


def write(path: Path, content: bytes) -> None:
    """Nothing is written where the same is there already: that needs no room on a full disk."""
    if _holds(path, content):
        return
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    beside.rename(path)
    sync_folder(path.parent)


def _holds(path: Path, content: bytes) -> bool:
    try:
        about = path.lstat()
        return stat.S_ISREG(about.st_mode) and about.st_mode & 0o777 == 0o600 and path.read_bytes() == content
    except OSError:
        return False


def write_json(path: Path, value: object) -> None:
    write(path, json.dumps(value, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no file; a file that is no JSON object is a failure that names it."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise PartError(
            f"{path} cannot be read.", "Restore it from a copy, or move it away.", retryable=False
        )
    return value


def private_folder(path: Path) -> None:
    """Make it, 0700; a link or another user's folder is refused."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path.lstat()
    if path.is_symlink() or about.st_uid != os.getuid():
        raise PartError(
            f"The folder {path} is a link or another user's.",
            "Move it away; it is made again.",
            retryable=False,
        )
    if about.st_mode & 0o077:
        path.chmod(0o700)


def sync_folder(path: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
