"""Secrets as values that do not show themselves: not in a log line, a traceback, a comparison of test results."""

from __future__ import annotations

import os
from pathlib import Path


class Secret:
    """The value of a variable. `.value` is the text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @property
    def value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


class SecretFile(Secret):
    """The file that a variable names (`as: file`). It is read again when it has changed."""

    __slots__ = ("path", "_seen", "_bytes")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__("")
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._bytes = b""
        self.bytes()

    def bytes(self) -> bytes:
        found = self.path.stat()
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen != self._seen:
            self._bytes, self._seen = self.path.read_bytes(), seen
        return self._bytes

    @property
    def value(self) -> str:
        """As text, without the line end that editors put there."""
        return self.bytes().decode().removesuffix("\n")
