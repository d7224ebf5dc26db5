"""C2SP tlog-checkpoint: origin, size and root of a tree as the text of a signed note (c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from idi.ledger import strict64
from idi.ledger.merkle import HASH_SIZE
from idi.ledger.note import Note, Signer, Verifier, open_note
from idi.ledger.problem import Problem

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log. We write no extension lines; a stranger's are read and dropped."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{strict64.encode(self.root)}\n"


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint whose signature was verified, with the note that carries it."""

    checkpoint: Checkpoint
    note: Note


def parse(text: str) -> Checkpoint | Problem:
    """Read a checkpoint's text; strict, since it is signed byte for byte."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        return Problem("it is not three or more lines that are not empty")
    origin, size, encoded = lines[:3]
    if not _SIZE.fullmatch(size):
        return Problem("its second line is not a tree size")
    root = strict64.decode(encoded)
    if root is None or len(root) != HASH_SIZE:
        return Problem("its third line is not the base64 of a SHA-256 hash")
    return Checkpoint(origin, int(size), root)


def sign(checkpoint: Checkpoint, signer: Signer) -> bytes:
    return signer.sign(checkpoint.text()).encode()


def open_head(data: bytes, known: Iterable[Verifier], origin: str) -> Head | Problem:
    """Verify a signed head and that it is this log's."""
    note = open_note(data, known)
    if isinstance(note, Problem):
        return note
    checkpoint = parse(note.text)
    if isinstance(checkpoint, Problem):
        return checkpoint
    if checkpoint.origin != origin:
        return Problem(f"it is the head of {checkpoint.origin}, not of {origin}")
    return Head(checkpoint, note)
