"""Inclusion and consistency proofs: made as RFC 6962 (2.1.1, 2.1.2) defines them, verified as RFC 9162 does.

Making one reads O(log n) stored hashes: on each step down, the sibling that goes into the proof is either a
perfect subtree (stored) or the right edge, whose hash comes from the perfect subtrees below it. Verifying needs
no tree, only the claimed roots, and treats every argument as a stranger's.
"""

from __future__ import annotations

from collections.abc import Sequence

from idi.ledger.merkle import HASH_SIZE, ReadNode, node_hash

Proof = tuple[bytes, ...]


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (count > 1)."""
    return 1 << (count - 1).bit_length() - 1


def _root(read: ReadNode, low: int, high: int) -> bytes:
    """Hash of the subtree over [low, high). `low` is aligned for it: true of every node of the tree."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return read(level, low >> level)
    middle = low + _split(count)
    return node_hash(_root(read, low, middle), _root(read, middle, high))


def prove_inclusion(index: int, size: int, read: ReadNode) -> Proof:
    """The path from leaf `index` to the root of the tree of `size` leaves, sibling of the leaf first."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_root(read, middle, high))
            high = middle
        else:
            path.append(_root(read, low, middle))
            low = middle
    return tuple(reversed(path))


def prove_consistency(old: int, new: int, read: ReadNode) -> Proof:
    """That the tree of `old` leaves is a prefix of the one of `new`. Empty for 0 and for equal sizes."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is no prefix of a tree of {new}")
    if old in (0, new):
        return ()
    path: list[bytes] = []
    low, high = 0, new
    whole = True  # the old tree is the whole subtree reached: the verifier has its root already
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_root(read, middle, high))
            high = middle
        else:
            path.append(_root(read, low, middle))
            low = middle
            whole = False
    if not whole:
        path.append(_root(read, low, high))
    return tuple(reversed(path))


def _well_formed(hashes: Sequence[bytes]) -> bool:
    return all(len(one) == HASH_SIZE for one in hashes)


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size or not _well_formed([leaf, root, *proof]):
        return False
    fn, sn, found = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = node_hash(sibling, found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = node_hash(found, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162, 2.1.4.2. An empty tree is a prefix of every tree; its proof is empty."""
    if not 0 <= old <= new or not _well_formed([old_root, new_root, *proof]):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root
