"""Write the log, or one entry with its proof, for somebody who has none of our code.

A log goes out as C2SP tlog-tiles: the folder is what a tile log serves over HTTP, so any static file server
publishes it and any tile client reads it. Tiles never change once they are full and are written first, the
checkpoint last, so that a folder that is exported again while it is being read never promises a tile that is
not there yet.

One entry goes out as its own bytes and a C2SP tlog-proof beside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idi.ledger import tiles
from idi.ledger.merkle import ReadNode
from idi.parts.errors import PartError


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many entries it covers and how many files are new."""

    entries: int
    files: int


def export_tiles(
    folder: Path, head: bytes, size: int, read_node: ReadNode, read_entry: Callable[[int], bytes]
) -> Exported:
    """Write the log of `size` entries below `folder`; what is there already is left alone."""
    written = 0
    try:
        for tile in tiles.tiles(size):
            path = folder / tile.path()
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, tiles.content(tile, read_node, read_entry))
            written += 1
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "checkpoint", head)
    except OSError as error:
        raise PartError(f"The log cannot be written to {folder}: {error}.", retryable=False) from error
    return Exported(size, written + 1)


def export_proof(path: Path, entry: bytes, proof: bytes) -> tuple[Path, Path]:
    """Write `<path>.json`, the entry as it was hashed, and `<path>.tlog-proof`."""
    entry_path, proof_path = path.with_name(path.name + ".json"), path.with_name(path.name + ".tlog-proof")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(entry_path, entry)
        _replace(proof_path, proof)
    except OSError as error:
        raise PartError(f"The proof cannot be written to {path}: {error}.", retryable=False) from error
    return entry_path, proof_path


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all; it can be made again, so it is not worth an fsync."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    os.replace(new, path)
