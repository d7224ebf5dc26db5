"""Which key signs and which are published, at any moment: pure, from nothing but when each key begins.

A key is published before it signs (`lead_s`), so that everyone who caches the key set has it by then, and
stays published after the next one took over for at least as long as a token lives (`overlap_s`). Both ends
follow from the order of the beginnings, so nothing has to be marked, cleaned up on time or repaired after a
crash, and a longer token life that is declared meanwhile holds for keys that are on their way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from idi.parts.errors import Refused


@dataclass(frozen=True, slots=True)
class Key:
    """`kid` is the RFC 7638 thumbprint; `jwk` the private key as JSON members."""

    kid: str
    signs_from: float
    jwk: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ring:
    """At least one key, in the order in which they begin."""

    keys: tuple[Key, ...]

    def signing(self, now: float) -> Key:
        """The youngest that has begun (the oldest, should the clock have gone back before all)."""
        begun = [key for key in self.keys if key.signs_from <= now]
        return begun[-1] if begun else self.keys[0]

    def published(self, now: float, overlap_s: float) -> tuple[Key, ...]:
        ends = [after.signs_from + overlap_s for after in self.keys[1:]]
        return tuple(key for key, end in zip(self.keys, [*ends, now + 1], strict=True) if end > now)

    def waiting(self, now: float) -> Key | None:
        """A key that is published and does not sign yet."""
        return self.keys[-1] if len(self.keys) > 1 and self.keys[-1].signs_from > now else None

    def rotated(self, key: Key, now: float, overlap_s: float) -> Ring:
        """With a key that begins later; refused while one is waiting."""
        if (waiting := self.waiting(now)) is not None:
            raise Refused(
                f"A rotation is under way: key {waiting.kid} signs in {waiting.signs_from - now:.0f} s.",
                "Wait for it, or replace all keys at once, which ends every token that is out.",
            )
        return Ring((*self.published(now, overlap_s), key))

    def is_due(self, now: float, every_s: float) -> bool:
        return now >= self.keys[-1].signs_from + every_s
