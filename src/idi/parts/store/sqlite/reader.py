"""Reading a journal without ever writing to it, whoever else has it open.

A `Snapshot` is one read transaction: what it shows stays the same while the writer goes on. It believes
nothing: a page that does not decode, a row of a wrong type or a missing one is `Damaged`, which names what
was being read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from idi.ledger.entry import Entry, decode
from idi.ledger.merkle import HASH_SIZE
from idi.ledger.problem import Problem
from idi.parts.errors import IdiError
from idi.parts.store.interface import MAX_READ, Filter
from idi.parts.store.sqlite import schema


class Damaged(IdiError):
    """What is in the file cannot be what was written."""


class OtherVersion(IdiError):
    """A journal of another version of idi; `version` is its number."""

    def __init__(self, version: int) -> None:
        super().__init__(f"it is of version {version}, this idi reads version {schema.VERSION}")
        self.version = version


@dataclass(frozen=True, slots=True)
class Meta:
    origin: str
    verifier: str
    previous: int


@contextmanager
def snapshot(path: Path) -> Iterator[Snapshot]:
    """One consistent view of the database."""
    with _named("the file"):
        connection = schema.connect(path, writing=False)
    try:
        with _named("the file"):
            connection.execute("BEGIN")
            application = _pragma(connection, "application_id")
            version = _pragma(connection, "user_version")
        if application != schema.APPLICATION_ID:
            raise Damaged(f"it is not a journal (application id {application:#x})")
        if version != schema.VERSION:
            raise OtherVersion(version)
        yield Snapshot(connection)
    finally:
        connection.close()


class Snapshot:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def faults(self, *, thorough: bool) -> list[str]:
        """What SQLite itself finds wrong with its pages, and tables that are not ours."""
        check = "integrity_check" if thorough else "quick_check"
        with _named("its pages"):
            found = [str(row[0]) for row in self._connection.execute(f"PRAGMA {check}(20)")]
            tables = {
                str(name): str(sql)
                for name, sql in self._connection.execute(
                    "SELECT name, sql FROM sqlite_master WHERE sql <> ''"
                )
            }
        faults = [fault for fault in found if fault != "ok"]
        for name in sorted(tables.keys() | schema.TABLES.keys()):
            if tables.get(name) != schema.TABLES.get(name):
                faults.append(f"the table {name} is not defined as it should be")
        return faults

    def meta(self) -> Meta:
        with _named("whose log it is"):
            rows = self._connection.execute("SELECT id, origin, verifier, previous FROM journal").fetchall()
        match rows:
            case [(1, str(origin), str(verifier), int(previous))]:
                return Meta(origin, verifier, previous)
        raise Damaged("the row that says whose log it is is missing or wrong")

    def size(self) -> int:
        """One more than the highest index."""
        return self._number("how many entries there are", "SELECT coalesce(max(idx), -1) + 1 FROM entry")

    def node(self, level: int, index: int) -> bytes:
        name = f"hash {index} of level {level}"
        with _named(name):
            row = self._connection.execute(
                "SELECT hash FROM hash WHERE level = ? AND idx = ?", (level, index)
            ).fetchone()
        if row is None or not isinstance(row[0], bytes) or len(row[0]) != HASH_SIZE:
            raise Damaged(f"{name} is missing or wrong")
        return row[0]

    def data(self, index: int) -> bytes:
        with _named(f"entry {index}"):
            row = self._connection.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise Damaged(f"entry {index} is missing or wrong")
        return row[0]

    def entry(self, index: int) -> Entry:
        found = decode(self.data(index))
        if isinstance(found, Problem):
            raise Damaged(f"entry {index}: {found.text}")
        if found.index != index:
            raise Damaged(f"entry {index}: it says that it is entry {found.index}")
        return found

    def entries(self, start: int, limit: int, *, newest: bool, only: Filter) -> list[Entry]:
        """As `Store.entries`."""
        size, limit = self.size(), min(limit, MAX_READ)
        found: list[Entry] = []
        for index in range(size - 1 - start, -1, -1) if newest else range(start, size):
            if len(found) >= limit:
                break
            entry = self.entry(index)
            if only.matches(entry):
                found.append(entry)
        return found

    def open_entries(self) -> list[int]:
        """Indices of the entries of unfinished changes."""
        with _named("which changes are open"):
            rows = self._connection.execute("SELECT idx FROM open ORDER BY idx").fetchall()
        return [_index(row[0], "which changes are open") for row in rows]

    def outbox(self) -> int:
        return self.count("outbox")

    def count(self, table: str) -> int:
        return self._number(f"the table {table}", f"SELECT count(*) FROM {table}")  # noqa: S608

    def pending(self, limit: int) -> list[int]:
        with _named("the outbox"):
            rows = self._connection.execute(
                "SELECT idx FROM outbox ORDER BY idx LIMIT ?", (limit,)
            ).fetchall()
        return [_index(row[0], "the outbox") for row in rows]

    def document(self, name: str) -> bytes | None:
        with _named(f"the document {name}"):
            row = self._connection.execute("SELECT data FROM document WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise Damaged(f"the document {name} is wrong")
        return row[0]

    def rows(self, table: str, columns: str, order: str) -> Iterator[tuple[object, ...]]:
        """Every row of a table as it stands, for a verifier; the names are the caller's own."""
        with _named(f"the table {table}"):
            yield from self._connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608

    def _number(self, what: str, query: str) -> int:
        with _named(what):
            row = self._connection.execute(query).fetchone()
        return _index(row[0], what)


def _index(value: object, what: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise Damaged(f"{what}: {value!r} is no index")
    return value


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turn what SQLite says into what could not be read; a lack of room or of rights is not damage."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            raise
        raise Damaged(f"{what} cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        # SQLite puts a damaged name into its message, and the message cannot be read.
        raise Damaged(f"{what} cannot be read (a name in it is not UTF-8)") from error
