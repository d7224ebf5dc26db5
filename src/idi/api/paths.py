"""Where a platform keeps its things, found from its declaration file and environment alone.

Three folders, for three kinds of things: state (`.idi/<env>/` beside the file, `.idi/<file>.<env>/`
where that is not called platform.yaml: journal, logs, seats),
runtime (sockets and credentials, short because a socket's path may have 104 bytes at most, gone at
logout without loss), keys (outside the checkout, so that a copied or committed checkout never carries
one). All are 0700; a folder that is a link or belongs to somebody else is refused.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from idi.api.place import place, socket_name

SOCKET_PATH_LIMIT = 104


class UnsafeFolder(Exception):
    """A folder that must be private is a link, belongs to somebody else, or cannot be made."""


@dataclass(frozen=True, slots=True)
class Paths:
    """`hash8` tells platforms on one machine apart: it is over the file's real path and environment."""

    file: Path
    environment: str
    hash8: str
    state: Path
    runtime: Path
    keys: Path
    role: str = ""
    """In which somebody acts on a cluster, where they said so."""

    @property
    def socket(self) -> Path:
        return self.runtime / socket_name(self.role)

    @property
    def lock(self) -> Path:
        """Held (flock) by the one control of this platform; holds its pid."""
        return self.state / "lock"

    @property
    def log(self) -> Path:
        return self.logs / "control.log"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def start_error(self) -> Path:
        """Why control could not start, as JSON `{"message","way_out"}`; removed by a good start."""
        return self.state / "start-error.json"


def paths_for(file: str | os.PathLike[str], environment: str, role: str = "") -> Paths:
    """Paths of the platform declared in `file`; touches nothing."""
    real, hash8, state, runtime, keys = place(file, environment)
    return Paths(Path(real), environment, hash8, Path(state), Path(runtime), Path(keys), role)


def make_private(folder: Path) -> None:
    """Make `folder` (and its parents) or check that it is ours, 0700 and no link."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_symlink():
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UnsafeFolder(f"{folder} cannot be made: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{folder} is a link or no folder; it must be a private folder. Remove it.")
    if found.st_uid != os.getuid():
        raise UnsafeFolder(f"{folder} belongs to user {found.st_uid}, not to you. Remove it.")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
