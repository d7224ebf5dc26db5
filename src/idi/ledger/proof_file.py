"""C2SP tlog-proof: one file that shows that an entry is in a log (c2sp.org/tlog-proof).

It carries the index, the path to the root and the signed head, so that whoever has the entry's bytes and the
log's public key needs nothing else: no network, and none of our code.
"""

from __future__ import annotations

from dataclasses import dataclass

from idi.ledger import strict64
from idi.ledger.checkpoint import Head, open_head
from idi.ledger.merkle import HASH_SIZE, leaf_hash
from idi.ledger.note import Verifier
from idi.ledger.problem import Problem
from idi.ledger.proofs import Proof, verify_inclusion

_FIRST = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """`head` is a signed checkpoint, verbatim."""

    index: int
    path: Proof
    head: bytes

    def encode(self) -> bytes:
        lines = [
            _FIRST,
            f"index {self.index}",
            *(strict64.encode(one) for one in self.path),
            "",
            "",
        ]
        return "\n".join(lines).encode() + self.head


def parse(data: bytes) -> InclusionProof | Problem:
    """Read a proof; verifies nothing. Extra data that somebody added is read over."""
    top, blank, head = data.partition(b"\n\n")
    try:
        lines = top.decode().split("\n")
    except UnicodeDecodeError:
        return Problem("it is not UTF-8")
    if not blank or lines[0] != _FIRST:
        return Problem(f"it does not begin with {_FIRST}")
    if len(lines) > 1 and lines[1].startswith("extra "):
        del lines[1]
    if len(lines) < 2 or not lines[1].startswith("index "):
        return Problem("it has no index")
    index = lines[1].removeprefix("index ")
    if not index.isascii() or not index.isdigit() or str(int(index[:20])) != index:
        return Problem("its index is not a number")
    path = []
    for line in lines[2:]:
        one = strict64.decode(line)
        if one is None or len(one) != HASH_SIZE:
            return Problem("a line of its path is not the base64 of a SHA-256 hash")
        path.append(one)
    return InclusionProof(int(index), tuple(path), head)


def verify(data: bytes, entry: bytes, verifier: Verifier) -> Head | Problem:
    """That the entry is in the log that this key signs, at the place that the proof names."""
    proof = parse(data)
    if isinstance(proof, Problem):
        return proof
    head = open_head(proof.head, [verifier], verifier.name)
    if isinstance(head, Problem):
        return head
    signed = head.checkpoint
    if not verify_inclusion(proof.index, signed.size, leaf_hash(entry), proof.path, signed.root):
        return Problem(f"it does not show that this is entry {proof.index} of {signed.size}")
    return head
