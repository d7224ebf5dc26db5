"""Bounds on how often a client may ask: two buckets for each.

Tokens that are granted have one: a client that fetches a token for every request is told to keep it. Wrong
secrets have another, and only wrong ones take from it, so nobody can lock a client out by failing in its
name. It is not what keeps a secret safe (256 bits are): it tells a misconfigured client to slow down.
Names that are not declared share one bucket, so there are never more buckets than declared clients.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, `per_s` on the average."""

    per_s: float
    burst: float


@dataclass(slots=True)
class Buckets:
    rate: Rate
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, name: str, now: float) -> float:
        """0 when one was left, else the seconds until one is. `now` is monotonic."""
        left, at = self._left.get(name, (self.rate.burst, now))
        left = min(self.rate.burst, left + max(now - at, 0.0) * self.rate.per_s)
        if left < 1:
            self._left[name] = (left, now)
            return (1 - left) / self.rate.per_s
        self._left[name] = (left - 1, now)
        return 0.0

    def forget_all_but(self, names: frozenset[str]) -> None:
        self._left = {name: value for name, value in self._left.items() if name in names}
