"""What secrets a process gets: as text for its variables, as files in memory.

Values are asked for before each start and go into the process's environment or into a file; nothing of ours
keeps them. A file lies in a folder of the operator's own in memory (tmpfs), never on a disk, where deleting
is no promise: `/dev/shm`, else the runtime folder of the login. Where there is neither, a secret that is to
be a file is refused rather than written somewhere else. One folder per instance goes with it; what an
instance left that ended while nobody watched is swept when the next control takes over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idi.parts.clients import private_file
from idi.parts.errors import PartError
from idi.parts.targets.interface import Supply, Unsupplied, text_of
from idi.parts.targets.references import needed
from idi.world.types import InstanceId, RevisionSpec

MOUNTS = Path("/proc/self/mounts")
SHARED = Path("/dev/shm")
IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Supplied:
    """By path: the values of what becomes text, the files of what becomes a file."""

    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)


NOTHING = Supplied()


def memory_folder(platform_hash: str, own: Mapping[str, str]) -> Path | None:
    """Where this platform's files may lie; None where nothing is known to be memory."""
    try:
        mounts = MOUNTS.read_text()
    except OSError:  # no Linux
        return None
    runtime = own.get("XDG_RUNTIME_DIR", "")
    for base in (SHARED, *([Path(runtime)] if runtime.startswith("/") else [])):
        if base.is_dir() and os.access(base, os.W_OK) and in_memory(base, mounts):
            return base / f"idi-{os.getuid()}-{platform_hash}"
    return None


def in_memory(path: Path, mounts: str) -> bool:
    """Whether the innermost mount that has this path is memory; the last of several on one point counts."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").rstrip("/")
        if (str(path) == point or str(path).startswith(point + "/")) and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind in IN_MEMORY


class SecretFiles:
    """`folder` None: there is no memory to keep them in."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def place(self, instance: InstanceId, values: Mapping[str, bytes]) -> dict[str, str]:
        """Write them, each 0400; the files by the secrets' paths."""
        if not values:
            return {}
        if self._folder is None:
            raise Unsupplied(
                f"secret {next(iter(values))} is to be a file, and nothing here is memory to keep it in "
                "(no tmpfs at /dev/shm or XDG_RUNTIME_DIR)",
                "Declare it as a variable.",
                retryable=False,
            )
        placed = {}
        try:
            private_file.private_folder(self._folder)
            own = self._folder / instance
            private_file.private_folder(own)
            for path, value in values.items():
                placed[path] = str(_write(own, path, value))
        except OSError as error:
            raise Unsupplied(
                f"its secret files cannot be written in {self._folder}: {error.strerror}"
            ) from error
        return placed

    def path(self, instance: InstanceId, path: str) -> str:
        """Where such a file lies; empty where there is no memory for it."""
        return str(_file(self._folder / instance, path)) if self._folder is not None else ""

    def remove(self, instance: InstanceId) -> None:
        """With all of its files. Idempotent."""
        if self._folder is not None:
            shutil.rmtree(self._folder / instance, ignore_errors=True)
            try:
                self._folder.rmdir()  # after the last one
            except OSError:
                pass

    def sweep(self, living: Collection[InstanceId]) -> None:
        """Remove what belongs to no instance that there is."""
        if self._folder is None or self._folder.is_symlink() or not self._folder.is_dir():
            return
        for left in list(self._folder.iterdir()):
            if left.name not in living:
                self.remove(InstanceId(left.name))


def _file(folder: Path, path: str) -> Path:
    """Paths may begin with each other and file names are short, so each has a folder of its own; the last name
    stays as it is, since programs look at endings."""
    return folder / hashlib.sha256(path.encode()).hexdigest()[:12] / path.rpartition("/")[2][-200:]


def _write(folder: Path, path: str, value: bytes) -> Path:
    file = _file(folder, path)
    private_file.private_folder(file.parent)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with open(descriptor, "wb") as opened:
        opened.write(value)
    return file


async def supplied(supply: Supply, files: SecretFiles, instance: InstanceId, spec: RevisionSpec) -> Supplied:
    """Everything that this revision refers to. Raises `Unsupplied`."""
    wanted = needed(spec)
    if not wanted.texts and not wanted.files:
        return NOTHING
    values = await supply(spec, wanted.texts | wanted.files)
    texts = {path: as_text(path, values[path]) for path in sorted(wanted.texts)}
    try:
        placed = files.place(instance, {path: values[path] for path in sorted(wanted.files)})
    except Unsupplied:
        raise
    except PartError as error:  # somebody else's folder
        raise Unsupplied(error.message.rstrip("."), error.way_out) from error
    return Supplied(texts, placed)


def as_text(path: str, value: bytes) -> str:
    text = text_of(value)
    if text is None:
        raise Unsupplied(
            f"secret {path} is no text, which a variable must be",
            "Declare it as: file, or set a text.",
            retryable=False,
        )
    return text
