"""Journals for tests: one with a history, its files as they are in the middle of work, and what is in them."""

import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from idi.parts.store.interface import Actor, Step, Store
from idi.parts.store.sqlite import open_store

ADA = Actor("peer", "ada", 1000, 4711)
ORIGIN = "example.com/idi"


@dataclass(frozen=True)
class Place:
    """Where a journal is: its own folder and the folder of its key."""

    directory: Path
    keys: Path

    @property
    def database(self) -> Path:
        return self.directory / "journal.db"

    @property
    def wal(self) -> Path:
        return self.directory / "journal.db-wal"

    @property
    def head(self) -> Path:
        return self.directory / "head"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        # A small reserve: these tests copy journals by the hundred.
        async with open_store(
            self.directory, self.keys, origin=ORIGIN, clock=time.time, reserve_bytes=1 << 16
        ) as store:
            yield store

    def copy(self, to: Path) -> "Place":
        """The files as they are now; of a journal that is open and quiet, what a crash would leave."""
        if to.exists():
            shutil.rmtree(to)
        shutil.copytree(self.directory, to, ignore=shutil.ignore_patterns("*-shm", "reserve"))
        return Place(to, self.keys)

    def files(self) -> dict[str, bytes]:
        """What decides about a journal, byte for byte. A reader may make a write-ahead log that is empty."""
        found = {
            path.name: path.read_bytes() for path in (self.database, self.wal, self.head) if path.exists()
        }
        return {name: data for name, data in found.items() if data}


async def change(store: Store, number: int = 0, *, finish: bool = True) -> None:
    """A change of two steps with a document."""
    documents = {"declaration": b"version %d\n" % number * 20, f"overlay-{number % 3}": b"x" * number}
    begun = await store.begin(ADA, "up", {"file": "platform.yaml", "number": number}, documents=documents)
    one, two = await store.intend(begun, [Step("start", "jede"), Step("start", "cam")])
    await store.outcome(one, True, {"pid": number})
    if finish:
        await store.outcome(two, number % 2 == 0)
        await store.finish(begun, number % 2 == 0, documents={f"overlay-{number % 3}": None})


async def write_history(store: Store, changes: int) -> None:
    """Changes that ended well and badly, a part of the outbox acknowledged, one change that has not ended."""
    for number in range(changes):
        await change(store, number)
    await store.delivered(store.state.size // 3)
    await change(store, changes, finish=False)


def content(place: Place) -> list[object]:
    """Everything that the database says, whatever its bytes look like. Raises sqlite3.Error if it cannot."""
    connection = sqlite3.connect(f"file:{quote(str(place.database))}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        found: list[object] = [
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")
        ]
        tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        found.append(tables)
        for name, _ in tables:
            if not name.startswith(b"sqlite_"):
                found.append(connection.execute(f"SELECT * FROM {name.decode()}").fetchall())
        found.append(connection.execute("PRAGMA integrity_check").fetchall())
        return found
    finally:
        connection.close()
