"""What one transaction writes, as statements."""

from __future__ import annotations

import sqlite3

from idi.parts.store.draft import Writes


def write_rows(connection: sqlite3.Connection, writes: Writes, previous: int) -> int:
    """Write everything inside of the caller's transaction; returns how many entries are in the outbox more
    than before. `previous` is the number of entries before it."""
    entries = [(row.index, row.data) for row in writes.rows]
    connection.executemany("INSERT INTO entry (idx, data) VALUES (?, ?)", entries)
    connection.executemany("INSERT INTO hash (level, idx, hash) VALUES (?, ?, ?)", writes.nodes)
    connection.executemany("INSERT INTO outbox (idx) VALUES (?)", [(row.index,) for row in writes.rows])
    grown = len(writes.rows)
    connection.executemany(
        "INSERT INTO open (idx, change) VALUES (?, ?)",
        [(row.index, row.change) for row in writes.rows if row.change is not None],
    )
    connection.executemany("DELETE FROM open WHERE change = ?", [(change,) for change in writes.closed])
    for name, (data, index) in writes.documents.items():
        if data is None:
            connection.execute("DELETE FROM document WHERE name = ?", (name,))
        else:
            connection.execute(
                "INSERT INTO document (name, data, idx) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET data = excluded.data, idx = excluded.idx",
                (name, data, index),
            )
    if writes.rows:
        connection.execute("UPDATE journal SET previous = ?", (previous,))
    if writes.delivered is not None:
        grown -= connection.execute("DELETE FROM outbox WHERE idx <= ?", (writes.delivered,)).rowcount
    return grown
