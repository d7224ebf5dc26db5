"""The audit log for those who cannot read its files: the signed head and the entries' own bytes, page by page.

Nothing is judged here. Whoever asks verifies what they get on their own machine; a page is of one snapshot, and what a
head covers never changes, so pages of several moments belong together.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from pathlib import Path

from idi.api.types import AuditView
from idi.parts.store.sqlite.check import open_log

MOST_ENTRIES = 500
MOST_BYTES = 4 * 1024 * 1024
AT_ONCE = 2


@dataclass(slots=True)
class AuditPages:
    """`folder` is the journal's."""

    folder: Path
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def page(self, start: int, limit: int) -> AuditView:
        """From entry `start` on; fewer than asked for where they are large. Raises `Refused`."""
        async with self._places:
            return await asyncio.to_thread(self._read, start, limit)

    def _read(self, start: int, limit: int) -> AuditView:
        with open_log(self.folder) as log:
            entries: list[str] = []
            size = 0
            for at in range(start, min(log.size, start + min(limit, MOST_ENTRIES))):
                data = log.read_entry(at)
                size += len(data)
                if entries and size > MOST_BYTES:
                    break
                entries.append(base64.b64encode(data).decode())
            return {
                "origin": log.origin,
                "verifier": log.verifier,
                "head": base64.b64encode(log.head).decode(),
                "size": log.size,
                "start": start,
                "entries": entries,
            }
