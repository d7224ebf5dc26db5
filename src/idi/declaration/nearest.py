"""The nearest valid name to a wrong one: the question at the end of a message."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(wrong: str, valid: Iterable[str]) -> str | None:
    """The valid name a person most likely meant, or None where nothing is near."""
    candidates = {_plain(candidate): candidate for candidate in sorted(set(valid) - {wrong})}
    plain = _plain(wrong)[:64]
    if plain in candidates:
        return candidates[plain]
    if len(plain) >= 3:
        begun = [candidate for candidate in candidates if candidate.startswith(plain)]
        if len(begun) == 1:
            return candidates[begun[0]]
    from difflib import get_close_matches  # only a mistake pays for the import

    found = get_close_matches(plain, candidates, n=1, cutoff=0.6)
    return candidates[found[0]] if found else None


def _plain(name: str) -> str:
    """Case and the kind of dash are what people mistake most: variables are in capitals, names are not."""
    return name.lower().replace("_", "-")


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names for a message, cut where there are very many."""
    every = list(names)
    shown = ", ".join(every[:limit])
    return f"{shown} and {len(every) - limit} more" if len(every) > limit else shown or "none"
