"""tlog-tiles: paths and contents as the specification words them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.ledger import tiles
from idi.ledger.merkle import leaf_hash
from idi.ledger.tiles import Tile
from tests.unit.ledger.test_merkle import grow, naive_root

pytestmark = pytest.mark.requirement("S5")


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 256), "tile/0/000"),
        (Tile(0, 1234067, 256), "tile/0/x001/x234/067"),
        (Tile(2, 7, 1), "tile/2/007.p/1"),
        (Tile(None, 1000, 12), "tile/entries/x001/000.p/12"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path() == path


def test_the_specification_s_example_of_70_000() -> None:
    counted = Counter((tile.level, tile.width) for tile in tiles.tiles(70_000))
    assert counted == {
        (0, 256): 273,
        (0, 112): 1,
        (1, 256): 1,
        (1, 17): 1,
        (2, 1): 1,
        (None, 256): 273,
        (None, 112): 1,
    }


def test_a_tree_of_256_has_a_full_tile_and_one_above_it() -> None:
    assert {tile.path() for tile in tiles.tiles(256)} == {"tile/0/000", "tile/entries/000", "tile/1/000.p/1"}
    assert list(tiles.tiles(0)) == []


@given(st.sampled_from([1, 255, 256, 257, 600]))
def test_contents(size: int) -> None:
    leaves = [b"entry %d" % at for at in range(size)]
    _, nodes = grow(leaves)
    entries = b""
    for tile in tiles.tiles(size):
        data = tiles.content(tile, lambda level, position: nodes[level, position], lambda at: leaves[at])
        if tile.level is None:
            entries += data
            continue
        assert len(data) == 32 * tile.width
        span = 256**tile.level
        for at in range(tile.width):
            start = (tile.index * 256 + at) * span
            assert data[32 * at : 32 * at + 32] == naive_root(leaves[start : start + span])
    read = []
    while entries:
        length = int.from_bytes(entries[:2], "big")
        read.append(entries[2 : 2 + length])
        entries = entries[2 + length :]
    assert read == leaves
    assert leaf_hash(read[0]) == nodes[0, 0]
