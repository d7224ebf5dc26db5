"""Verify, prove and export from the files alone, whether control runs or not.

Reading order makes a running writer harmless: head, then snapshot, then head again. If both heads are the same,
no transaction was signed in between, and the database may be ahead of the head by the one that is on its way
and by nothing else. If they differ, the writer was faster, and the three are read again.

Nothing raises for what is in the files: garbage is a finding.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from idi.ledger import checkpoint, note
from idi.ledger.entry import Entry
from idi.ledger.note import Signer, Verifier
from idi.ledger.problem import Problem
from idi.ledger.proof_file import InclusionProof
from idi.ledger.proofs import prove_inclusion
from idi.ledger.verify import Finding, Report, Stored, verify
from idi.parts.errors import Refused
from idi.parts.store.files import log_seed, read_if_there
from idi.parts.store.interface import Filter
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.reader import Damaged, Meta, OtherVersion, Snapshot, snapshot

_TRIES = 50


@dataclass(frozen=True, slots=True)
class Log:
    """A log that can be exported: everything that its signed head covers, read from one snapshot."""

    head: bytes
    size: int
    read_node: Callable[[int, int], bytes]
    read_entry: Callable[[int], bytes]
    origin: str = ""
    verifier: str = ""


def verify_journal(
    directory: Path, *, verifier: str = "", key_dir: Path | None = None, kept_heads: Sequence[bytes] = ()
) -> Report:
    """Verify the journal in a folder. `verifier` is the log's key (`name+id+base64`) that the reader trusts;
    without one it is made from `log-key` in `key_dir`; without both the journal's own word is taken."""
    path = directory / schema.FILE
    try:
        if not path.exists():
            return _nothing(f"{path} is missing")
        with _signed_snapshot(directory) as (view, head, moving):
            faults = view.faults(thorough=True)
            try:
                meta = view.meta()
            except Damaged as error:
                faults.append(error.message)
                meta = Meta("", "", 0)
            trusted = _trusted(meta, verifier, key_dir)
            if isinstance(trusted, Problem):
                return _nothing(f"the key to verify with: {trusted.text}")
            return verify(_stored(view, meta, faults, head, moving), trusted, kept_heads)
    except (Damaged, OtherVersion) as error:
        return _nothing(f"{path}: {error.message}")
    except (sqlite3.Error, OSError) as error:
        return _nothing(f"{path} cannot be read: {error}")


@contextmanager
def open_log(directory: Path) -> Iterator[Log]:
    """What `prove` and exports read. Raises `Refused` when the journal cannot be read."""
    path = directory / schema.FILE
    try:
        with _signed_snapshot(directory) as (view, head, _):
            meta = view.meta()
            verifier = note.parse_verifier(meta.verifier)
            if isinstance(verifier, Problem):
                raise Damaged(f"the key that it names cannot be read: {verifier.text}")
            signed = checkpoint.open_head(head or b"", [verifier], meta.origin)
            if isinstance(signed, Problem):
                raise Damaged(f"the signed head {directory / schema.HEAD}: {signed.text}")
            size = signed.checkpoint.size
            if size > view.size():
                raise Damaged(f"the signed head names {size} entries, the database has {view.size()}")
            yield Log(head or b"", size, view.node, view.data, meta.origin, meta.verifier)
    except (Damaged, OtherVersion, sqlite3.Error) as error:
        raise _unreadable(path, error) from error


def list_entries(
    directory: Path, start: int = 0, limit: int = 100, *, newest: bool = False, only: Filter | None = None
) -> list[Entry]:
    """As `Store.entries`, from the files alone."""
    path = directory / schema.FILE
    try:
        with snapshot(path) as view:
            return view.entries(start, limit, newest=newest, only=only or Filter())
    except (Damaged, OtherVersion, sqlite3.Error) as error:
        raise _unreadable(path, error) from error


def read_document(directory: Path, name: str) -> bytes | None:
    """As `Store.document`, from the files alone."""
    path = directory / schema.FILE
    if not path.exists():
        return None
    try:
        with snapshot(path) as view:
            return view.document(name)
    except (Damaged, OtherVersion, sqlite3.Error) as error:
        raise _unreadable(path, error) from error


def prove(log: Log, index: int) -> InclusionProof:
    """That an entry is in the log, for somebody who has its bytes and the log's key."""
    if not 0 <= index < log.size:
        raise Refused(
            f"There is no entry {index}: the signed log has {log.size}.", "`idi audit list` names them."
        )
    return InclusionProof(index, prove_inclusion(index, log.size, log.read_node), log.head)


@contextmanager
def _signed_snapshot(directory: Path) -> Iterator[tuple[Snapshot, bytes | None, bool]]:
    """(snapshot, head, whether the writer outran us)."""
    path, head_path = directory / schema.FILE, directory / schema.HEAD
    for left in reversed(range(_TRIES)):
        head = read_if_there(head_path)
        with snapshot(path) as view:
            again = read_if_there(head_path)
            if again == head or left == 0:
                yield view, head, again != head
                return


def _trusted(meta: Meta, verifier: str, key_dir: Path | None) -> Verifier | Problem | None:
    if verifier:
        return note.parse_verifier(verifier)
    if key_dir is None:
        return None
    try:
        return Signer(meta.origin or "unknown", log_seed(key_dir, make=False)).verifier
    except (Refused, ValueError) as error:
        return Problem(str(error))


def _stored(view: Snapshot, meta: Meta, faults: list[str], head: bytes | None, moving: bool) -> Stored:
    def stored_hash(level: int, position: int) -> object:
        try:
            return view.node(level, position)
        except Damaged:
            return None

    def rows(table: str, columns: str, order: str) -> Iterator[tuple[object, ...] | Problem]:
        try:
            yield from view.rows(table, columns, order)
        except Damaged as error:
            yield Problem(error.message)

    try:
        hash_count = view.count("hash")
    except Damaged:
        hash_count = -1
    return Stored(
        origin=meta.origin,
        verifier=meta.verifier,
        previous=meta.previous,
        entries=rows("entry", "idx, data", "idx"),
        stored_hash=stored_hash,
        hash_count=hash_count,
        open_entries=rows("open", "idx, change", "idx"),
        outbox=rows("outbox", "idx", "idx"),
        documents=rows("document", "name, data, idx", "id"),
        head=head,
        faults=faults,
        moving=moving,
    )


def _unreadable(path: Path, error: Exception) -> Refused:
    return Refused(f"The journal {path} cannot be read: {error}.", "See what `idi audit verify` says.")


def _nothing(text: str) -> Report:
    return Report("", 0, None, (Finding(text),))
