"""The tree against RFC 6962's own recursive definition and published values."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, load_frontier, node_hash, subtrees

pytestmark = pytest.mark.requirement("S5")

# Leaves and roots that Certificate Transparency's implementations share as known answers.
LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    bytes.fromhex("2021"),
    bytes.fromhex("3031"),
    bytes.fromhex("40414243"),
    bytes.fromhex("5051525354555657"),
    bytes.fromhex("606162636465666768696a6b6c6d6e6f"),
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def grow(leaves: list[bytes]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
    tree, nodes = Frontier(), {}
    for leaf in leaves:
        tree, completed = tree.append(leaf_hash(leaf))
        for node in completed:
            assert (node.level, node.position) not in nodes, "a stored hash is written once"
            nodes[node.level, node.position] = node.hash
    return tree, nodes


def test_known_answers() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root() == EMPTY_ROOT
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert (
        node_hash(b"N123", b"N456").hex()
        == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )
    tree = Frontier()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree, _ = tree.append(leaf_hash(leaf))
        assert tree.root().hex() == root


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_root_is_the_recursive_definition_s(leaves: list[bytes]) -> None:
    tree, nodes = grow(leaves)
    assert tree.root() == naive_root(leaves)
    assert len(tree.hashes) == len(leaves).bit_count(), "the frontier stays logarithmic"
    for (level, position), found in nodes.items():
        assert found == naive_root(leaves[position << level : position + 1 << level])


@given(st.lists(st.binary(max_size=4), max_size=70), st.data())
def test_the_frontier_of_every_earlier_size_comes_from_stored_hashes(
    leaves: list[bytes], data: st.DataObject
) -> None:
    _, nodes = grow(leaves)
    size = data.draw(st.integers(0, len(leaves)))
    tree = load_frontier(size, lambda level, position: nodes[level, position])
    assert tree.root() == naive_root(leaves[:size])
    assert tree == grow(leaves[:size])[0]


def test_appending_to_a_large_log_is_logarithmic() -> None:
    for size in (2**20, 2**20 - 1, 1_000_001):
        tree = Frontier(size, tuple(bytes(32) for _ in subtrees(size)))
        bigger, completed = tree.append(bytes(32))
        assert bigger.size == size + 1
        assert len(completed) <= 21
        assert len(bigger.hashes) <= 21
