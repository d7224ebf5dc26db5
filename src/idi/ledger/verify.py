"""Offline verification of a whole log, row by row, believing nothing.

The rows come from whoever can read them, as they stand. Everything that is stored beside the entries is
computed again from the entries and compared: leaf hashes, tree, open changes, outbox, documents. What ties it
to the world outside the database is the signed head: its root must be the root of the first `size` entries.

Two trees are kept once bytes and stored leaf hash of an entry differ, one of the bytes and one of the stored
hashes. Whichever has the signed root was not touched, so the report can say which of the two was changed. A
stored inner hash is sound if either tree has it. What follows from the entries (open changes, documents) is compared
only while every entry is what it was. So one changed byte is one finding and not twenty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from idi.ledger import checkpoint, note
from idi.ledger.changes import Open, fold
from idi.ledger.checkpoint import Checkpoint
from idi.ledger.entry import Entry, decode
from idi.ledger.merkle import Frontier, leaf_hash
from idi.ledger.note import Verifier
from idi.ledger.problem import Problem

MAX_FINDINGS = 1000

Rows = Iterable[tuple[object, ...] | Problem]
"""Rows in order; a problem, if any, comes last: nothing after it could be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a reader found. `entries` are (index, bytes), `open_entries` (index, change), `documents` (name,
    bytes, index), `outbox` (index,); `hash_count` counts the rows that `stored_hash` (level, position) reads.

    `moving`: the writer was at work all the while, so that how far it is ahead of `head` says nothing. `alone`: the
    entries and the head are all there is, as somebody gets them who does not have the database.
    """

    origin: str
    verifier: str
    previous: int
    entries: Rows
    stored_hash: Callable[[int, int], object]
    hash_count: int
    open_entries: Rows
    outbox: Rows
    documents: Rows
    head: bytes | None
    faults: Sequence[str] = ()
    moving: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. `index` is that of the entry, if it is about one."""

    text: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`size` entries were read; `signed` is what the head says, None if it cannot be trusted."""

    origin: str
    size: int
    signed: Checkpoint | None
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.findings


def verify(stored: Stored, trusted: Verifier | None, kept_heads: Sequence[bytes] = ()) -> Report:
    """Check everything. `trusted` is the log's key from outside of the database; without one its own word is
    taken for it, and the report says so. `kept_heads` are earlier heads that somebody put by: the log must
    still hold what they say."""
    return _Verification(stored, trusted).run(kept_heads)


@dataclass(slots=True)
class _Two:
    """The tree of the bytes, and that of the stored leaf hashes where it differs."""

    bytes: Frontier = field(default_factory=Frontier)
    hashes: Frontier | None = None


class _Verification:
    def __init__(self, stored: Stored, trusted: Verifier | None) -> None:
        self._stored = stored
        self._trusted = trusted
        self._findings: list[Finding] = []
        self._remarks: list[str] = []
        self._open: Open = {}
        self._sound = True
        self._members: dict[int, set[int]] = {}
        self._documents: dict[str, tuple[str, int]] = {}
        self._roots: dict[int, tuple[bytes, bytes]] = {}

    def run(self, kept_heads: Sequence[bytes]) -> Report:
        stored = self._stored
        for fault in stored.faults:
            self._find(f"the database: {fault}")
        verifier = self._verifier()
        signed = self._open_head(stored.head, verifier, "the signed head")
        kept = [self._open_head(data, verifier, f"kept head {at}") for at, data in enumerate(kept_heads)]
        wanted = {one.size for one in [signed, *kept] if one is not None}
        size = self._entries(wanted)
        expected = sum(size >> level for level in range(size.bit_length()))
        if stored.hash_count != expected and not stored.alone:
            self._find(f"there are {stored.hash_count} stored hashes, {expected} belong to {size} entries")
        if signed is not None:
            self._head(signed, size)
        for at, one in enumerate(kept):
            if one is not None:
                self._prefix(one, size, f"kept head {at}")
        if not stored.alone:
            self._beside(size)
        return Report(stored.origin, size, signed, tuple(self._findings), tuple(self._remarks))

    def _find(self, text: str, index: int | None = None) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(text if index is None else f"entry {index}: {text}", index))
        elif len(self._findings) == MAX_FINDINGS:
            self._findings.append(Finding(f"there are more than {MAX_FINDINGS} findings"))

    def _unsound(self, text: str, index: int | None = None) -> None:
        """A finding that leaves open what the entry said."""
        self._find(text, index)
        self._sound = False

    # --- the key and the heads

    def _verifier(self) -> Verifier | None:
        own = note.parse_verifier(self._stored.verifier)
        if isinstance(own, Problem):
            self._find(f"the key that the journal names cannot be read: {own.text}")
        elif own.name != self._stored.origin:
            self._find(f"the key that the journal names is {own.name}'s, the log is {self._stored.origin}")
        if self._trusted is None:
            self._remarks.append("the key was taken from the journal itself, not from outside of it")
            return None if isinstance(own, Problem) else own
        if own != self._trusted:
            self._find(f"the journal names the key {self._stored.verifier}, not {self._trusted.encode()}")
        return self._trusted

    def _open_head(self, data: bytes | None, verifier: Verifier | None, name: str) -> Checkpoint | None:
        if data is None:
            self._find(f"{name} is missing")
            return None
        if verifier is None:
            return None
        head = checkpoint.open_head(data, [verifier], verifier.name)
        if isinstance(head, Problem):
            self._find(f"{name} cannot be trusted: {head.text}")
            return None
        if self._stored.origin != verifier.name:
            self._find(f"the log calls itself {self._stored.origin}, {name} is that of {verifier.name}")
        return head.checkpoint

    def _head(self, signed: Checkpoint, size: int) -> None:
        self._prefix(signed, size, "the signed head")
        ahead = size - signed.size
        if self._stored.previous > size:
            self._find(
                f"the last transaction began at entry {self._stored.previous}, there are {size} entries"
            )
        elif ahead > 0 and not self._stored.moving:
            if signed.size == self._stored.previous:
                self._remarks.append(f"{ahead} entries of the last transaction are not signed yet")
            else:
                self._find(
                    f"{ahead} entries follow the {signed.size} that the signed head names, "
                    f"only those from {self._stored.previous} on can be on their way"
                )

    def _prefix(self, signed: Checkpoint, size: int, name: str) -> None:
        if signed.size > size:
            last = signed.size - 1
            lost = f"entry {size} is" if last == size else f"entries {size} to {last} are"
            self._find(f"{lost} lost: {name} names {signed.size} entries, there are {size}")
            return
        of_bytes, of_hashes = self._roots[signed.size]
        if signed.root == of_bytes == of_hashes:
            return
        if signed.root == of_bytes:
            self._find(f"{name} confirms the entries: stored hashes were changed")
        elif signed.root == of_hashes:
            self._find(f"{name} confirms the stored hashes: bytes of entries were changed")
        else:
            self._find(f"the first {signed.size} entries do not have the root that {name} names")

    # --- the entries

    def _entries(self, wanted: set[int]) -> int:
        trees, expected = _Two(), 0
        self._note_root(trees, wanted)
        for row in self._stored.entries:
            if isinstance(row, Problem):
                self._unsound(f"entries from {expected} on: {row.text}")
                break
            match row:
                case (int(index), bytes(data)):
                    pass
                case (index, _):
                    self._unsound(f"entry {index!r} does not have the form of one")
                    data = b""
                case _:
                    self._unsound("a row does not have the form of an entry")
                    continue
            if index != expected:
                self._unsound(f"entry {index!r} stands where entry {expected} belongs: entries are missing")
                index = index if isinstance(index, int) and index > expected else expected
                if index - expected > MAX_FINDINGS:
                    break  # no tree can be made of what is left
                for missing in range(expected, index):
                    self._leaf(trees, missing, None)
                    self._note_root(trees, wanted)
            self._leaf(trees, index, data)
            self._read(index, data)
            expected = index + 1
            self._note_root(trees, wanted)
        return expected

    def _note_root(self, trees: _Two, wanted: set[int]) -> None:
        size = trees.bytes.size
        if size in wanted:
            of_bytes = trees.bytes.root()
            self._roots[size] = (of_bytes, of_bytes if trees.hashes is None else trees.hashes.root())

    def _leaf(self, trees: _Two, index: int, data: bytes | None) -> None:
        """Append to both trees and compare what each completes with what is stored."""
        computed = leaf_hash(data or b"")
        if self._stored.alone:
            trees.bytes, _ = trees.bytes.append(computed)
            return
        stored = self._stored.stored_hash(0, index)
        kept = stored if isinstance(stored, bytes) and len(stored) == len(computed) else computed
        if stored != computed and data is not None:
            missing = "" if isinstance(stored, bytes) else " (which is missing)"
            self._unsound(f"its bytes do not match its leaf hash{missing}", index)
        if kept != computed and trees.hashes is None:
            trees.hashes = trees.bytes
        trees.bytes, completed = trees.bytes.append(computed)
        others = completed
        if trees.hashes is not None:
            trees.hashes, others = trees.hashes.append(kept)
        for one, other in zip(completed[1:], others[1:], strict=True):
            found = self._stored.stored_hash(one.level, one.position)
            if found not in (one.hash, other.hash):
                first, last = one.position << one.level, (one.position + 1 << one.level) - 1
                self._find(f"the stored hash over entries {first} to {last} is not the hash of them")

    def _read(self, index: int, data: bytes) -> None:
        entry = decode(data)
        if isinstance(entry, Problem):
            self._unsound(entry.text, index)
            return
        if entry.index != index:
            self._unsound(f"it says that it is entry {entry.index}", index)
            return
        if index == 0:
            self._first(entry)
        if not self._sound:
            return
        after = fold(self._open, entry)
        if isinstance(after, Problem):
            self._find(after.text, index)
        else:
            self._open = after
            if entry.change is not None:
                self._members.setdefault(entry.change, set()).add(index)
                if entry.change not in after:
                    del self._members[entry.change]
        for name, digest in entry.documents.items():
            self._documents.pop(name, None)
            if digest is not None:
                self._documents[name] = (digest, index)

    def _first(self, entry: Entry) -> None:
        named = {"origin": self._stored.origin, "verifier": self._stored.verifier}
        if entry.action != "journal.create" or dict(entry.detail) != named:
            self._find("it does not create the log that the journal says it is", 0)

    # --- what is stored beside them

    def _beside(self, size: int) -> None:
        self._outbox(size)
        if not self._sound:
            self._remarks.append(
                "open changes and documents were not compared: not every entry is what it was"
            )
            return
        open_now = {(index, change) for change, members in self._members.items() for index in members}
        found = set(self._table(self._stored.open_entries, "open changes"))
        for index, change in sorted(open_now - found):
            self._find(f"it belongs to change {change}, which is open, but it is not listed so", index)
        for row in sorted(found - open_now, key=repr):
            self._find(f"the list of open changes names {row}, which is not open")
        kept: dict[str, tuple[str, int]] = {}
        for row in self._table(self._stored.documents, "documents"):
            match row:
                case (str(name), bytes(data), int(index)):
                    kept[name] = (sha256(data).hexdigest(), index)
                case _:
                    self._find("a document does not have the form of one")
        for name in sorted(self._documents.keys() | kept.keys()):
            if self._documents.get(name) != kept.get(name):
                self._find(f"the document {name} is not what the last entry about it says")

    def _outbox(self, size: int) -> None:
        rows = [row[0] for row in self._table(self._stored.outbox, "outbox") if row]
        first = rows[0] if rows and isinstance(rows[0], int) else size
        if rows != list(range(first, size)):
            self._find("the outbox does not hold every entry after the last acknowledged one")

    def _table(self, rows: Rows, name: str) -> list[tuple[object, ...]]:
        found = []
        for row in rows:
            if isinstance(row, Problem):
                self._find(f"the {name}: {row.text}")
                break
            found.append(row)
        return found
