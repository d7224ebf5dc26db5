"""The database: what is in it, by which version, and how it is opened.

`entry` holds the entries as the bytes that were hashed, `hash` every perfect subtree of the Merkle tree (level
0: the leaves). `outbox` names the entries that EAT has not acknowledged, `open` those of unfinished changes, so
that a start reads these and not the whole log. `document` is beside the log, each under the entry that wrote
it. `journal` has one row: whose log it is, and how many entries there were before the last transaction, which
tells how far the database may rightly be ahead of its signed head after a crash.

Nothing but `entry` is believed: a verifier computes all of the rest from it and compares.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

APPLICATION_ID = 0x4A494449
VERSION = 1
FILE = "journal.db"
HEAD = "head"

TABLES: Mapping[str, str] = {
    "journal": "CREATE TABLE journal (id INTEGER PRIMARY KEY, origin TEXT NOT NULL, verifier TEXT NOT NULL, "
    "previous INTEGER NOT NULL)",
    "entry": "CREATE TABLE entry (idx INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "hash": "CREATE TABLE hash (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, "
    "PRIMARY KEY (level, idx)) WITHOUT ROWID",
    "outbox": "CREATE TABLE outbox (idx INTEGER PRIMARY KEY)",
    "open": "CREATE TABLE open (idx INTEGER PRIMARY KEY, change INTEGER NOT NULL)",
    "document": "CREATE TABLE document (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "data BLOB NOT NULL, idx INTEGER NOT NULL)",
}


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """Open the file. A reader never writes to it, nor does it take the write-ahead log away by closing."""
    mode = "rw" if writing else "ro"
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5, check_same_thread=False)
    # Text that is not UTF-8 must be a finding, not an exception in the middle of reading.
    connection.text_factory = _text
    if writing:
        # The file is ours alone but for short readers; FULL: a commit is on the disk when it returns.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")
        # Checkpoints are made by the writer between batches, not inside of somebody's commit.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {16 << 20}")
    else:
        connection.execute("PRAGMA query_only = ON")
    return connection


def create(path: Path) -> sqlite3.Connection:
    """A new database at a path where nothing is yet."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    for statement in TABLES.values():
        connection.execute(statement)
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
