"""Tokens that a gateway must refuse, each wrong in one way only.

They are signed with the issuer's real key, read from the platform's key folder, so that a refusal cannot be
thanks to the signature.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey


def claims(issuer: str, audience: str, scope: str, **other: Any) -> dict[str, Any]:
    """Claims as the real issuer makes them, with `other` in their place."""
    now = int(time.time())
    made = {
        "iss": issuer,
        "sub": "pilot",
        "aud": audience,
        "client_id": "pilot",
        "iat": now,
        "exp": now + 300,
        "jti": "forged",
        "scope": scope,
    }
    return {name: value for name, value in (made | other).items() if value is not None}


def signed(keys: Path, made: dict[str, Any]) -> str:
    """Signed with the key that the issuer signs with."""
    [key] = json.loads((keys / "issuer" / "issuer-keys.json").read_text())["keys"]
    header = {"alg": "ES256", "kid": key["kid"], "typ": "at+jwt"}
    return jwt.encode(header, made, ECKey.import_key(key["jwk"]), algorithms=["ES256"])


def with_another_key(keys: Path, made: dict[str, Any]) -> str:
    """The real key's id, signed with a key of one's own."""
    [key] = json.loads((keys / "issuer" / "issuer-keys.json").read_text())["keys"]
    header = {"alg": "ES256", "kid": key["kid"], "typ": "at+jwt"}
    return jwt.encode(header, made, ECKey.generate_key("P-256"), algorithms=["ES256"])


def unsigned(made: dict[str, Any]) -> str:
    """`alg: none`."""
    return f"{encoded({'alg': 'none', 'typ': 'at+jwt'})}.{encoded(made)}."


def encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
