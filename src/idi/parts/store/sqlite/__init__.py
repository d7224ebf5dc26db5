"""The journal in one SQLite file: WAL, synchronous FULL, one thread that writes."""

from idi.parts.store.sqlite.store import open_store

__all__ = ["open_store"]
