"""A declaration's folder that was moved or copied: its state is there, and its keys are under the former place.

Keys lie outside the checkout, in a folder named after the declaration's path. Without this, a renamed folder
would only say that a key is missing.
"""

from __future__ import annotations

from pathlib import Path

from idi.api.paths import Paths
from idi.parts.errors import Refused

MARK = "place"
"""In the state folder: the name of the key folder that belongs to it."""


def check(paths: Paths) -> None:
    """Remember the place, or raise `Refused` with the way out where it is another one than before. Called
    before the key folder is made."""
    mark = paths.state / MARK
    before = read(mark)
    former = paths.keys.parent / before
    if before and before != paths.hash8 and holds_something(former) and not holds_something(paths.keys):
        if paths.keys.is_dir():
            paths.keys.rmdir()  # an earlier start made it; `mv` would put the other one into it
        raise Refused(
            f"{paths.file.parent} was moved or copied: the keys to its state are in {former}.",
            f"If it was moved: mv {former} {paths.keys}   "
            f"If it is a copy, let it begin anew: mv {paths.state} {paths.state}.before",
        )
    if before != paths.hash8:
        mark.write_text(f"{paths.hash8}\n", encoding="ascii")


def read(mark: Path) -> str:
    try:
        return mark.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
