"""ES256 keys of the issuer: made, kept and used here.

They lie in a 0600 file in the key folder, outside the checkout and the state folder. Encrypting the file
with a key that would have to lie next to it would protect nothing. A key is on disk before it is published
and published before it signs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from idi.parts.clients import private_file
from idi.parts.errors import PartError
from idi.parts.tokens.embedded.ring import Key, Ring

ALGORITHM = "ES256"
_PUBLIC = ("crv", "kty", "x", "y")


def new_key(signs_from: float) -> Key:
    made = ECKey.generate_key("P-256", private=True)
    return Key(
        made.thumbprint(),
        signs_from,
        {name: str(value) for name, value in made.as_dict(private=True).items()},
    )


def key_set(keys: Iterable[Key]) -> str:
    """The public key set as JSON; the same keys give the same bytes."""
    members = [
        {**{name: key.jwk[name] for name in _PUBLIC}, "alg": ALGORITHM, "kid": key.kid, "use": "sig"}
        for key in keys
    ]
    members.sort(key=lambda member: member["kid"])
    return json.dumps({"keys": members}, sort_keys=True, separators=(",", ":"))


class Signer:
    """Keeps the parsed form of the key that signs."""

    def __init__(self) -> None:
        self._kid = ""
        self._parsed: ECKey | None = None

    def sign(self, key: Key, kind: str, claims: Mapping[str, Any]) -> str:
        if self._parsed is None or self._kid != key.kid:
            self._kid, self._parsed = key.kid, ECKey.import_key(dict(key.jwk))
        header = {"alg": ALGORITHM, "kid": key.kid, "typ": kind}
        return jwt.encode(header, dict(claims), self._parsed, algorithms=[ALGORITHM])


class KeyFile:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "issuer-keys.json"

    def load(self) -> Ring | None:
        found = private_file.read_json(self.path)
        if found is None:
            return None
        try:
            keys = sorted(
                (
                    Key(
                        str(each["kid"]),
                        float(each["signs_from"]),
                        {str(k): str(v) for k, v in each["jwk"].items()},
                    )
                    for each in found["keys"]
                ),
                key=lambda key: key.signs_from,
            )
            if not keys or any(ECKey.import_key(dict(key.jwk)).thumbprint() != key.kid for key in keys):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError):
            raise PartError(
                f"{self.path} holds no keys of the issuer.",
                "Restore it from a copy, or move it away: new keys are made and every token that is out ends.",
                retryable=False,
            ) from None
        return Ring(tuple(keys))

    def save(self, ring: Ring) -> None:
        members = [{"kid": key.kid, "signs_from": key.signs_from, "jwk": dict(key.jwk)} for key in ring.keys]
        try:
            private_file.write_json(self.path, {"keys": members})
        except OSError as error:
            raise PartError(f"The issuer's keys could not be kept: {error.strerror or error}.") from error
