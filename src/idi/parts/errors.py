"""Errors by whose fault: what a caller can do about one is its type, nothing deeper.

`Refused`: policy or state forbids it, trying again is no use. `PartError`: a real part failed;
`retryable` says whether the same call may succeed later. `Bug`: ours. A mistake in a declaration is a
value (`declaration.mistakes`), never an exception.
"""

from __future__ import annotations


class IdiError(Exception):
    """`message` is one sentence of what happened; `way_out` what the reader can do about it."""

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.message} {self.way_out}".strip()


class Refused(IdiError):
    """Policy or state forbids it."""


class PartError(IdiError):
    """A real part failed."""

    def __init__(self, message: str, way_out: str = "", *, retryable: bool = True) -> None:
        super().__init__(message, way_out)
        self.retryable = retryable


class Bug(IdiError):
    """Ours: an invariant does not hold."""
