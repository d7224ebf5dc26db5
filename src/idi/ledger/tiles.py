"""C2SP tlog-tiles: a log as static files that other people's tools fetch and verify (c2sp.org/tlog-tiles).

A tile at level L holds up to 256 hashes side by side; the i-th of level L covers the perfect subtree of 256^L
leaves that starts at leaf i * 256^L, which is a stored hash at tree level 8L. Beside them lie the entries, in
bundles of up to 256, each with its length as a big-endian 16-bit number. Only the last tile of a level may be
partial; its width is in its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from idi.ledger.merkle import ReadNode

WIDTH = 256
HEIGHT = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """`level` is None for a bundle of entries."""

    level: int | None
    index: int
    width: int

    def path(self) -> str:
        """Below the log's prefix: `tile/<L>/<N>[.p/<W>]`, N in groups of three digits."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def tiles(size: int) -> Iterator[Tile]:
    """Every tile and every bundle of a log of this size."""
    for level in range(8):
        count = size >> (HEIGHT * level)
        for index in range(-(-count // WIDTH)):
            width = min(WIDTH, count - index * WIDTH)
            yield Tile(level, index, width)
            if level == 0:
                yield Tile(None, index, width)


def content(tile: Tile, read_node: ReadNode, read_entry: Callable[[int], bytes]) -> bytes:
    """The bytes of one tile or bundle, from stored hashes and entries."""
    numbers = range(tile.index * WIDTH, tile.index * WIDTH + tile.width)
    if tile.level is not None:
        return b"".join(read_node(HEIGHT * tile.level, number) for number in numbers)
    entries = (read_entry(number) for number in numbers)
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
