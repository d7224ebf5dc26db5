"""What a token says and who may have one: RFC 6749 client credentials, RFC 9068 access tokens.

No socket and no file in here; the clock and the ids are handed in. Whatever a client gets wrong is an
`OAuthError` with the code that the RFC names; texts never repeat what was sent.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from idi.declaration.types import Client
from idi.parts.errors import Refused
from idi.parts.tokens.embedded.clients import ClientBook
from idi.parts.tokens.embedded.keys import Signer
from idi.parts.tokens.embedded.limits import Buckets, Rate
from idi.parts.tokens.embedded.ring import Ring

TOKEN_TYPE = "at+jwt"
OPERATOR_LIFE_LIMIT_S = 3600.0
SCOPE_LIMIT = 4096
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_SKEW_S = 60.0


class OAuthError(Exception):
    """An answer of RFC 6749, section 5.2; `retry_s` with status 429."""

    def __init__(self, code: str, description: str, status: int = 400, retry_s: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.description = description
        self.status = status
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Granted:
    access_token: str = field(repr=False)
    expires_in: int
    scope: str


def requested_scopes(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """What is asked for, in the order allowed; everything allowed where nothing is asked for."""
    if len(text) > SCOPE_LIMIT:
        raise OAuthError("invalid_scope", "The scope is too long.")
    asked = [token for token in text.split(" ") if token]
    if not asked:
        return tuple(allowed)
    if any(not _SCOPE_TOKEN.fullmatch(token) for token in asked):
        raise OAuthError("invalid_scope", "A scope has a character that scopes may not have.")
    if not set(asked) <= set(allowed):
        raise OAuthError("invalid_scope", "A scope was asked for that is not granted to this client.")
    return tuple(scope for scope in allowed if scope in set(asked))


class Issuer:
    """`url` is the gateway's own, what tokens and discovery call the issuer."""

    def __init__(
        self,
        url: str,
        audience: str,
        ring: Ring,
        clients: ClientBook,
        *,
        token_life_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self.url = url.rstrip("/")
        self.audience = audience
        self.ring = ring
        self.clients = clients
        self.token_life_s = token_life_s
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._signer = Signer()
        self._granted = Buckets(Rate(per_s=20, burst=100))
        self._failed = Buckets(Rate(per_s=0.5, burst=10))

    @property
    def overlap_s(self) -> float:
        """How long a key stays published after the next took over: no token lives longer."""
        return max(self.token_life_s, OPERATOR_LIFE_LIMIT_S) + _SKEW_S

    def declare(self, clients: Mapping[str, Client], token_life_s: float) -> None:
        self.clients.declare(clients)
        self.token_life_s = token_life_s
        names = frozenset(clients) | {""}
        self._granted.forget_all_but(names)
        self._failed.forget_all_but(names)

    def grant(self, client_id: str, client_secret: str, scope: str) -> Granted:
        client = self.clients.authenticate(client_id, client_secret)
        if client is None:
            wait = self._failed.take(client_id if self.clients.declared(client_id) else "", self._monotonic())
            if wait:
                raise OAuthError("invalid_client", "Too many attempts have failed.", 429, wait)
            raise OAuthError("invalid_client", "The client is not known or its secret is wrong.", 401)
        wait = self._granted.take(client.name, self._monotonic())
        if wait:
            raise OAuthError(
                "temporarily_unavailable", "Too many tokens: use each until it expires.", 429, wait
            )
        return self._token(
            client.name, client.name, requested_scopes(scope, client.scopes), self.token_life_s
        )

    def mint(self, subject: str, scopes: Sequence[str], life_s: float) -> Granted:
        """A token without a client, for a verified operator. `subject` carries a colon (`operator:ann`),
        which no client's name does, so that neither is ever taken for the other."""
        if ":" not in subject:
            raise Refused(f"'{subject}' could be a client's name; an operator's subject carries a colon.")
        if not 1 <= life_s <= OPERATOR_LIFE_LIMIT_S:
            raise Refused(
                f"A token of {life_s:g} s was asked for.", f"It may live 1 s to {OPERATOR_LIFE_LIMIT_S:g} s."
            )
        for scope in scopes:
            if not _SCOPE_TOKEN.fullmatch(scope):
                raise Refused(f"'{scope}' is no scope.")
        return self._token(subject, "idi", tuple(dict.fromkeys(scopes)), life_s)

    def mint_as(self, client: str, scopes: Sequence[str], life_s: float) -> Granted:
        """A token in a declared client's name, as it would get with its secret, for a verified operator."""
        if not self.clients.declared(client):
            raise Refused(f"No client '{client}' is declared.")
        if not 1 <= life_s <= OPERATOR_LIFE_LIMIT_S:
            raise Refused(
                f"A token of {life_s:g} s was asked for.", f"It may live 1 s to {OPERATOR_LIFE_LIMIT_S:g} s."
            )
        may = self.clients.scopes(client)
        if not set(scopes) <= set(may):
            raise Refused(f"Client '{client}' may have {', '.join(may) or 'no scope'} and nothing else.")
        return self._token(client, client, tuple(dict.fromkeys(scopes)), life_s)

    def _token(self, subject: str, client_id: str, scopes: Sequence[str], life_s: float) -> Granted:
        now = self._clock()
        issued, life = math.floor(now), max(math.floor(life_s), 1)
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": subject,
            "aud": self.audience,
            "client_id": client_id,
            "iat": issued,
            "exp": issued + life,
            "jti": self._new_id(),
            "scope": " ".join(scopes),
        }
        return Granted(self._signer.sign(self.ring.signing(now), TOKEN_TYPE, claims), life, claims["scope"])

    def metadata(self) -> dict[str, Any]:
        """OIDC discovery and RFC 8414: only what is really there."""
        return {
            "issuer": self.url,
            "token_endpoint": f"{self.url}/oauth2/token",
            "jwks_uri": f"{self.url}/oauth2/jwks.json",
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "scopes_supported": list(self.clients.every_scope()),
            "claims_supported": ["iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope"],
        }
