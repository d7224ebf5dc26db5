"""A failure as a value: what is wrong with bytes that somebody else may have written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` completes a sentence that names the thing: `entry 17: <text>`."""

    text: str

    def __str__(self) -> str:
        return self.text
