"""Words that several refusals share."""

from __future__ import annotations

from collections.abc import Iterable

from idi.declaration.nearest import nearest


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """` Did you mean 'cam'?` with its leading space, or nothing."""
    found = nearest(wrong, valid)
    return f" Did you mean '{found}'?" if found else ""
