"""RFC 6962 Merkle tree, kept as its frontier.

The tree over n leaves splits into perfect subtrees, one for each bit that is set in n. Their hashes, from the
left (largest) to the right, are the frontier: enough to append a leaf and to give the root in O(log n), and
all that has to be held in memory. Appending completes zero or more perfect subtrees; a hash that covers a
perfect subtree never changes again, so each is stored once, under (level, index): the subtree over the leaves
from `index << level` up to `(index + 1) << level`. From those stored hashes the root of every earlier size
and every proof can be had in O(log n) (`proofs`).

Leaves are hashed with the prefix 0x00 and inner nodes with 0x01, so that neither can pass for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()


class Node(NamedTuple):
    """The hash of one perfect subtree; level 0 is a leaf, `position` counts within the level."""

    level: int
    position: int
    hash: bytes


ReadNode = Callable[[int, int], bytes]
"""(level, index) -> hash of that perfect subtree; the caller sees to it that it exists."""


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def subtrees(size: int) -> Iterator[tuple[int, int]]:
    """(level, index) of each perfect subtree of the frontier of a tree of this size, from the left."""
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            yield level, start >> level
            start += 1 << level


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves; `hashes` belong to `subtrees(size)`, one to one."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> tuple[Frontier, list[Node]]:
        """The tree with one more leaf hash, and the perfect subtrees that it completed, leaf first."""
        completed = [Node(0, self.size, leaf)]
        kept = list(self.hashes)
        level, index, right = 0, self.size, leaf
        while index & 1:
            right = node_hash(kept.pop(), right)
            level, index = level + 1, index >> 1
            completed.append(Node(level, index, right))
        return Frontier(self.size + 1, (*kept, right)), completed

    def root(self) -> bytes:
        if not self.hashes:
            return EMPTY_ROOT
        *lefts, root = self.hashes
        for left in reversed(lefts):
            root = node_hash(left, root)
        return root


def load_frontier(size: int, read: ReadNode) -> Frontier:
    """The frontier of any size up to what is stored, from O(log n) stored hashes."""
    return Frontier(size, tuple(read(level, index) for level, index in subtrees(size)))
