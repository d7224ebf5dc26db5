"""Proofs: published ones, every proof of small trees against a naive maker, and no changed one is accepted."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.ledger.merkle import leaf_hash
from idi.ledger.proofs import prove_consistency, prove_inclusion, verify_consistency, verify_inclusion
from tests.unit.ledger.test_merkle import LEAVES, ROOTS, grow, naive_root

pytestmark = pytest.mark.requirement("S5")

SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")

# (leaf, size, path), (old, new, path): known answers that Certificate Transparency's implementations share.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(old: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, 2.1.2, word for word."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        return [*naive_subproof(old, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(old - k, leaves[k:], False), naive_root(leaves[:k])]


def altered(proof: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Everything that an honest verifier must refuse."""
    yield (*proof, b"")
    yield (*proof, SOME_HASH)
    yield (SOME_HASH, *proof)
    for at, one in enumerate(proof):
        yield (*proof[:at], bytes([one[0] ^ 8]) + one[1:], *proof[at + 1 :])
        yield (*proof[:at], *proof[at + 1 :])
        yield (*proof[: at + 1], *proof[at:])


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, path: list[str]) -> None:
    _, nodes = grow(LEAVES)
    proof = prove_inclusion(index, size, lambda level, position: nodes[level, position])
    assert [one.hex() for one in proof] == path
    assert verify_inclusion(index, size, leaf_hash(LEAVES[index]), proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int, path: list[str]) -> None:
    _, nodes = grow(LEAVES)
    proof = prove_consistency(old, new, lambda level, position: nodes[level, position])
    assert [one.hex() for one in proof] == path
    roots = [bytes.fromhex(root) for root in ROOTS]
    assert verify_consistency(old, new, roots[old - 1], roots[new - 1], proof)


def test_every_proof_of_every_small_tree() -> None:
    leaves = [bytes([at]) for at in range(33)]
    _, nodes = grow(leaves)

    def read(level: int, position: int) -> bytes:
        return nodes[level, position]

    for size in range(1, len(leaves) + 1):
        root = naive_root(leaves[:size])
        for index in range(size):
            proof = prove_inclusion(index, size, read)
            assert list(proof) == naive_path(index, leaves[:size])
            assert verify_inclusion(index, size, leaf_hash(leaves[index]), proof, root)
        for old in range(size + 1):
            proof = prove_consistency(old, size, read)
            expected = naive_subproof(old, leaves[:size], True) if old else []
            assert list(proof) == expected
            assert verify_consistency(old, size, naive_root(leaves[:old]), root, proof)


@given(st.integers(1, 200), st.data())
def test_no_altered_inclusion_proof_is_accepted(size: int, data: st.DataObject) -> None:
    leaves = [bytes([at % 256, at >> 8]) for at in range(size)]
    _, nodes = grow(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = prove_inclusion(index, size, lambda level, position: nodes[level, position])
    leaf, root = leaf_hash(leaves[index]), naive_root(leaves)
    assert verify_inclusion(index, size, leaf, proof, root)
    for wrong in altered(proof):
        assert not verify_inclusion(index, size, leaf, wrong, root)
    assert not verify_inclusion(index, size, SOME_HASH, proof, root)
    assert not verify_inclusion(index, size, leaf, proof, SOME_HASH)
    assert not verify_inclusion(index, size, b"", proof, root)
    assert not verify_inclusion(index, size, leaf, proof, b"")
    assert not verify_inclusion(-1, size, leaf, proof, root)
    assert not verify_inclusion(size, size, leaf, proof, root)
    if size > 1:
        assert not verify_inclusion(index ^ 1, size, leaf, proof, root)


@given(st.integers(2, 200), st.data())
def test_no_altered_consistency_proof_is_accepted(new: int, data: st.DataObject) -> None:
    leaves = [bytes([at % 256, at >> 8]) for at in range(new)]
    _, nodes = grow(leaves)
    old = data.draw(st.integers(1, new - 1))
    proof = prove_consistency(old, new, lambda level, position: nodes[level, position])
    first, second = naive_root(leaves[:old]), naive_root(leaves)
    assert verify_consistency(old, new, first, second, proof)
    for wrong in altered(proof):
        assert not verify_consistency(old, new, first, second, wrong)
    assert not verify_consistency(old, new, second, first, proof)
    assert not verify_consistency(old, new, SOME_HASH, second, proof)
    assert not verify_consistency(old, new, first, SOME_HASH, proof)
    assert not verify_consistency(new, old, first, second, proof)
    assert not verify_consistency(old, new, first, second, ())


def test_equal_and_empty_trees() -> None:
    root = naive_root([b"a"])
    assert verify_consistency(1, 1, root, root, ())
    assert not verify_consistency(1, 1, root, SOME_HASH, ())
    assert not verify_consistency(1, 1, root, root, (SOME_HASH,))
    assert verify_consistency(0, 1, naive_root([]), root, ())
    assert not verify_consistency(0, 1, naive_root([]), root, (SOME_HASH,))
    with pytest.raises(ValueError):
        prove_inclusion(3, 3, lambda level, position: b"")
    with pytest.raises(ValueError):
        prove_consistency(4, 3, lambda level, position: b"")
