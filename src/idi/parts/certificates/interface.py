"""What every certificate authority can do: issue a short-lived certificate for a SPIFFE identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM chain (leaf first, intermediate after it), PEM PKCS#8 key, PEM roots; times are wall-clock
    seconds since the epoch."""

    spiffe_id: str
    chain: bytes
    key: bytes
    roots: bytes
    not_before: float
    not_after: float

    def __repr__(self) -> str:  # the key must never reach a log through a repr
        return f"Certificate({self.spiffe_id}, not_after={self.not_after})"


class CertificateAuthority(Protocol):
    async def issue(self, spiffe_id: str, life_s: float) -> Certificate:
        """A new P-256 key and a certificate with this identity as its only URI name.

        Raises `PartError` (retryable) while the authority is sealed or down.
        """

    async def roots(self) -> bytes:
        """The PEM roots that are to be trusted now; what is issued from here on brings them along."""
