"""The nearest valid name to a wrong one: the question at the end of a message."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(wrong: str, valid: Iterable[str]) -> str | None:
    """The valid name a person most likely meant, or None where nothing is near."""
    candidates = sorted(set(valid) - {wrong})
    plain = wrong.lower().replace("_", "-")[:64]
    for candidate in candidates:
        if candidate.lower().replace("_", "-") == plain:
            return candidate
    if len(plain) >= 3:
        begun = [candidate for candidate in candidates if candidate.startswith(plain)]
        if len(begun) == 1:
            return begun[0]
    from difflib import get_close_matches  # only a mistake pays for the import

    found = get_close_matches(plain, candidates, n=1, cutoff=0.6)
    if not found and wrong != plain:  # variables are in capitals
        found = get_close_matches(wrong[:64], candidates, n=1, cutoff=0.75)
    return found[0] if found else None


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names for a message, cut where there are very many."""
    every = list(names)
    shown = ", ".join(every[:limit])
    return f"{shown} and {len(every) - limit} more" if len(every) > limit else shown or "none"
