"""The declaration as it lies there, for what it explains: where it is gone or wrong, nothing is said about it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from idi.declaration.types import Platform

    class Named(Protocol):
        """Of an invocation, which platform it is about."""

        file: str
        env: str


def declared(invocation: Named) -> Platform | None:
    """Nothing where the file is gone or wrong."""
    from idi.declaration.load import Loaded, load

    try:
        with open(invocation.file, "rb") as file:
            found = load(file.read(1 << 20), file=invocation.file, environment=invocation.env)
    except OSError:
        return None
    return found.platform if isinstance(found, Loaded) else None
