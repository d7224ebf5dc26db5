"""Opening a journal: make it, or check it against its signed head before anything is written.

What may be there, and what then:
- nothing: a new log. It is built under another name and moved into place whole; its head follows.
- as many entries as the head says, same root: go on.
- more, by exactly the last transaction: the crash came between commit and head. The head is an earlier state of
  the same tree, nobody was told that the transaction succeeded, nothing was done for it: the head advances, and
  an entry says so.
- fewer: entries were lost. SQLite drops a damaged end of its write-ahead log without a word; the head does not.
- anything else (another root, a head that does not verify, pages that do not read): damaged.

The checks use a read-only connection: one that may write would, by closing, take away the write-ahead log that
somebody may want to look at.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from idi.ledger import checkpoint
from idi.ledger.changes import Open, fold
from idi.ledger.checkpoint import Checkpoint, Head
from idi.ledger.merkle import leaf_hash, load_frontier
from idi.ledger.note import Signer
from idi.ledger.problem import Problem
from idi.parts.errors import PartError, Refused
from idi.parts.store import draft
from idi.parts.store.draft import PLATFORM, Compose, Tip
from idi.parts.store.files import log_seed, read_if_there, sync_folder, write_whole
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.reader import Damaged, Meta, OtherVersion, Snapshot, snapshot
from idi.parts.store.sqlite.rows import write_rows

TAIL = 256
"""How many of the newest entries are checked against their leaf hashes at a start; `audit verify` does all."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that holds what its head says. `notes` are to be written first."""

    signer: Signer
    tip: Tip
    head: bytes
    outbox: int
    notes: tuple[Compose[int], ...]


def open_journal(directory: Path, key_dir: Path, origin: str, now: float) -> Opened:
    """Check or make the files of a journal whose lock is held. Raises `Refused` for what a person must settle."""
    path, head_path = directory / schema.FILE, directory / schema.HEAD
    path.with_name(path.name + ".new").unlink(missing_ok=True)
    there = path.exists()
    if not there:
        left = [name for name in (schema.HEAD, f"{schema.FILE}-wal") if (directory / name).exists()]
        if left:
            _refuse(directory, path, f"it is missing, but {left[0]} is there")
        _create(path, key_dir, origin, now)
    try:
        with snapshot(path) as view:
            return _check(view, head_path, key_dir)
    except OtherVersion as error:
        raise Refused(
            f"The journal {path} is of version {error.version}, this idi reads version {schema.VERSION}.",
            f"Start it with the idi that wrote it, or set it aside: {set_aside(directory)}",
        ) from None
    except Damaged as error:
        _refuse(directory, path, error.message)


def set_aside(directory: Path) -> str:
    """The command that sets a journal aside; nothing of it is lost by it."""
    number, target = 1, directory.with_name(directory.name + ".aside")
    while target.exists():
        number += 1
        target = directory.with_name(f"{directory.name}.aside-{number}")
    return f"mv {directory} {target}"


def _refuse(directory: Path, path: Path, what: str) -> NoReturn:
    raise Refused(
        f"The journal is damaged: {path}: {what}. Traffic goes on, changes are refused.",
        f"Keep it for inspection and start a new one: {set_aside(directory)}",
    )


def _create(path: Path, key_dir: Path, origin: str, now: float) -> None:
    """A log of one entry, which says whose it is. Each log has an origin of its own, for ever: two logs that
    share one would be two histories under one name."""
    name = f"{origin}/{secrets.token_hex(4)}"
    signer = Signer(name, log_seed(key_dir, make=True))
    new = path.with_name(path.name + ".new")
    verifier = signer.verifier.encode()
    made = draft.note(PLATFORM, "journal.create", "", {"origin": name, "verifier": verifier}, {})(Tip(), now)
    try:
        connection = schema.create(new)
        try:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO journal VALUES (1, ?, ?, 0)", (name, verifier))
            write_rows(connection, made.writes, 0)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        new.chmod(0o600)
        new.rename(path)
        sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        new.unlink(missing_ok=True)
        raise PartError(f"The journal {path} cannot be made: {error}.", "Is the disk full?") from error


def _check(view: Snapshot, head_path: Path, key_dir: Path) -> Opened:
    faults = view.faults(thorough=False)
    if faults:
        raise Damaged(faults[0])
    meta, size = view.meta(), view.size()
    signer = Signer(meta.origin, log_seed(key_dir, make=False))
    if signer.verifier.encode() != meta.verifier:
        raise Damaged(f"its log is signed by {meta.verifier}, the key in {key_dir} is another one")
    frontier = load_frontier(size, view.node)
    head = _head(view, head_path, signer, meta, size)
    for index in range(max(0, size - TAIL), size):
        if leaf_hash(view.data(index)) != view.node(0, index):
            raise Damaged(f"entry {index}: its bytes do not match its leaf hash")
    tip = Tip(frontier, _open(view))
    signed = Checkpoint(meta.origin, size, frontier.root())
    if head is not None and head.checkpoint == signed:
        return Opened(signer, tip, head.note.encode(), view.outbox(), ())
    data = checkpoint.sign(signed, signer)
    write_whole(head_path, data)
    if head is None:
        return Opened(signer, tip, data, view.outbox(), ())
    detail = {"head": head.checkpoint.size, "entries": size}
    healed = draft.note(PLATFORM, "journal.heal", "", detail, {})
    return Opened(signer, tip, data, view.outbox(), (healed,))


def _head(view: Snapshot, path: Path, signer: Signer, meta: Meta, size: int) -> Head | None:
    """The head, if the database holds what it says; None if the very first one was not written yet."""
    data = read_if_there(path)
    if data is None:
        if meta.previous == 0 and size == 1:
            return None
        raise Damaged(f"the signed head {path} is missing")
    head = checkpoint.open_head(data, [signer.verifier], meta.origin)
    if isinstance(head, Problem):
        raise Damaged(f"the signed head {path} cannot be trusted: {head.text}")
    signed = head.checkpoint
    if signed.size > size:
        lost = f"entry {size} is" if signed.size == size + 1 else f"entries {size} to {signed.size - 1} are"
        raise Damaged(
            f"{lost} lost: the signed head {path} names {signed.size} entries, the database has {size} "
            f"(a damaged or cut {schema.FILE}-wal loses its end)"
        )
    if signed.size not in (size, meta.previous):
        raise Damaged(
            f"the signed head {path} names {signed.size} entries, the database has {size}, and a crash "
            f"explains only entries from {meta.previous} on: one of the two was replaced"
        )
    if load_frontier(signed.size, view.node).root() != signed.root:
        raise Damaged(f"its first {signed.size} entries are not the ones that the signed head {path} names")
    return head


def _open(view: Snapshot) -> Open:
    found: Open = {}
    for index in view.open_entries():
        after = fold(found, view.entry(index))
        if isinstance(after, Problem):
            raise Damaged(f"entry {index}: {after.text}")
        found = after
    return found
