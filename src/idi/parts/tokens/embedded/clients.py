"""The declared clients and their secrets.

A secret is 256 random bits, made here, shown once, kept as its SHA-256. A slow hash is for what people
choose: it makes guessing a small space dear. Nobody guesses 256 bits, and a slow hash would hand whoever
floods the token endpoint a way to spend our CPU. The comparison takes the same time for every wrong
secret and for a client that does not exist.

A client that is no longer declared loses its secret: declaring it again asks for a new one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from idi.declaration.types import Client
from idi.parts.clients import private_file
from idi.parts.errors import PartError, Refused

PREFIX = "idi_cs_"
"""Starts every secret, so that a scanner for secrets in code and logs can know one."""

_NOBODY = hashlib.sha256(b"").hexdigest()


class ClientBook:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "issuer-clients.json"
        self._hashes = {
            str(name): str(value) for name, value in (private_file.read_json(self.path) or {}).items()
        }
        self._declared: Mapping[str, Client] = {}

    def __repr__(self) -> str:
        return f"ClientBook({sorted(self._declared)})"

    def declare(self, clients: Mapping[str, Client]) -> None:
        self._declared = dict(clients)
        kept = {name: value for name, value in self._hashes.items() if name in clients}
        if kept != self._hashes:
            self._keep(kept)

    def new_secret(self, name: str) -> str:
        """A new secret; the one before is no good from now on."""
        if name not in self._declared:
            raise Refused(
                f"No client '{name}' is declared.",
                f"Declared are: {', '.join(sorted(self._declared)) or 'none'} (gateway.clients in the declaration).",
            )
        secret = PREFIX + secrets.token_urlsafe(32)
        self._keep({**self._hashes, name: _hash(secret)})
        return secret

    def has_secret(self, name: str) -> bool:
        return name in self._declared and name in self._hashes

    def authenticate(self, name: str, secret: str) -> Client | None:
        known = self._hashes.get(name) if name in self._declared else None
        right = hmac.compare_digest(_hash(secret), known or _NOBODY)
        return self._declared[name] if right and known is not None else None

    def scopes(self, name: str) -> tuple[str, ...]:
        client = self._declared.get(name)
        return client.scopes if client is not None else ()

    def declared(self, name: str) -> bool:
        return name in self._declared

    def every_scope(self) -> tuple[str, ...]:
        return tuple(sorted({scope for client in self._declared.values() for scope in client.scopes}))

    def _keep(self, hashes: Mapping[str, str]) -> None:
        try:
            private_file.write_json(self.path, dict(sorted(hashes.items())))
        except OSError as error:
            raise PartError(f"The clients' secrets could not be kept: {error.strerror or error}.") from error
        self._hashes = dict(hashes)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
