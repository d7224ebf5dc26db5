"""Registrations: instances that IDI did not start, kept alive by their own heartbeats.

Supervised instances need no registration: their process is watched. Whoever runs an instance by other
means registers it with a time to live and gets a credential for it; a heartbeat gives it another time to
live, its end without a heartbeat or a request of its own takes it back. Bounded: a registry that is full
refuses.

The credential is an HMAC of the instance's name under a key of the platform's, so that registrations
survive a restart of control; after one, each has one whole time to live to be heard of again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from idi.parts.errors import Refused

SHORTEST_TTL_S = 1.0
LONGEST_TTL_S = 3600.0
MOST = 1000


@dataclass(slots=True)
class Registration:
    """`until` is on the registry's own clock."""

    instance: str
    ttl_s: float
    until: float


class Registry:
    """`clock` is monotonic seconds; `key` signs credentials."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._known: dict[str, Registration] = {}

    def check(self, ttl_s: float) -> None:
        """Raise `Refused` where a registration of this time to live cannot be taken."""
        if not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
            raise Refused(
                f"A time to live of {ttl_s:g} s is out of range.",
                f"Ask for {SHORTEST_TTL_S:g} to {LONGEST_TTL_S:g} seconds.",
            )
        if len(self._known) >= MOST:
            raise Refused(f"{MOST} instances are registered already.", "Take one back first.")

    def add(self, instance: str, ttl_s: float) -> str:
        """Register; the credential for its heartbeats and its end."""
        self._known[instance] = Registration(instance, ttl_s, self._clock() + ttl_s)
        return self._sign(instance)

    def heartbeat(self, instance: str, credential: str) -> None:
        registration = self._checked(instance, credential)
        registration.until = self._clock() + registration.ttl_s

    def remove(self, instance: str, credential: str) -> None:
        self._checked(instance, credential)
        del self._known[instance]

    def drop(self, instance: str) -> None:
        """Take it back, whoever holds its credential."""
        self._known.pop(instance, None)

    def expire(self) -> list[str]:
        """Take back what was not heard of in time; their instances."""
        now = self._clock()
        gone = [each.instance for each in self._known.values() if each.until <= now]
        for instance in gone:
            del self._known[instance]
        return gone

    def next_s(self) -> float | None:
        """Seconds until the next one may expire; None where there is none."""
        if not self._known:
            return None
        return max(0.0, min(each.until for each in self._known.values()) - self._clock())

    def _checked(self, instance: str, credential: str) -> Registration:
        # The credential is compared first, so that names cannot be guessed by the answer.
        right = hmac.compare_digest(credential.encode(), self._sign(instance).encode())
        registration = self._known.get(instance)
        if not right or registration is None:
            raise Refused(f"No registration of '{instance}' has this credential.", "Register again.")
        return registration

    def _sign(self, instance: str) -> str:
        return hmac.digest(self._key, b"registration\0" + instance.encode(), "sha256").hex()
