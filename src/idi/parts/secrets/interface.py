"""What every store of secrets can do: values by path, each kept in versions.

A value is written only on top of the version that the writer has seen (check and set), so that of two writers
one is told instead of lost, and it is read by its version: all instances of a revision get the same one,
whenever they start and whatever was written since. No value is ever part of an error or a log line.
"""

from __future__ import annotations

from typing import Protocol

from idi.parts.errors import Refused

LARGEST_BYTES = 64 * 1024


class Overtaken(Refused):
    """Somebody else wrote in between."""


class SecretStore(Protocol):
    """Every call raises `PartError` while the store is sealed or does not answer."""

    async def version(self, path: str) -> int:
        """The newest version of a path; 0 where there is none."""

    async def put(self, path: str, value: bytes, after: int) -> int:
        """Write on top of version `after` (0: there is none yet); the new version. Raises `Overtaken`."""

    async def get(self, path: str, version: int) -> bytes | None:
        """The value; None where that version is not there (any more)."""
