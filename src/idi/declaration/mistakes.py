"""Mistakes in a declaration, as values.

Loading never stops at the first mistake: it collects all of them, and whoever shows them sorts by
place. A mistake says where, what is wrong with what was expected, and (where one exists) the way out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake: 1-based `line` and `column` in `file`, and the message (a sentence or two).

    Line 0: `file` is no file but says where else the value comes from.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"
