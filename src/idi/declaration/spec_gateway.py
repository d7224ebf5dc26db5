"""The `gateway` section: keys, meanings, bounds."""

from __future__ import annotations

from typing import Any

from idi.declaration.names import (
    AUDIENCE,
    CLIENT,
    FILE,
    HEADER,
    ORIGIN,
    SCOPE,
    URL,
)
from idi.declaration.nodes import Node, Table
from idi.declaration.reader import Reader
from idi.declaration.records import Field, Given, Named, Record
from idi.declaration.shapes import Choice, Either, Many, Whole
from idi.declaration.types import (
    AddressLimit,
    Client,
    Cors,
    EdgeLimits,
    EmbeddedIssuer,
    ExternalIssuer,
    Gateway,
    RateLimit,
    TlsFiles,
)
from idi.declaration.units import Duration, Size

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_REQUESTS = Whole(1, 10_000_000, 200)
_BURST = Whole(0, 10_000_000, 100)
_EVERY = Duration("100ms", "1d", "1s")


class _Issuer(Either):
    def read(self, node: Node, reader: Reader, key: str) -> Any:
        value = super().read(node, reader, key)
        return EmbeddedIssuer() if value == "embedded" else value

    def write(self, value: EmbeddedIssuer | ExternalIssuer) -> Any:
        return "embedded" if isinstance(value, EmbeddedIssuer) else self.table.write(value)


ISSUER = _Issuer(
    Choice("embedded", otherwise="a map with url and audience for an issuer of your own"),
    Record(
        "issuer",
        "An OpenID Connect issuer of your own, whose tokens the gateway accepts.",
        ExternalIssuer,
        Field("url", URL, "The issuer's URL, exactly as in the `iss` of its tokens.", needed=True),
        Field("audience", AUDIENCE, "The audience that tokens for this platform carry.", needed=True),
        Field(
            "jwks_url",
            URL,
            "Where its keys are, if discovery at `url` does not say so.",
            quiet=True,
            default="found by discovery",
        ),
    ),
)


def _rate_unbuild(value: RateLimit) -> Given:
    return {"per": "client", "requests": value.requests, "every_s": value.every_s, "burst": value.burst}


def _rate_build(given: Given, _node: Table, _reader: Reader) -> RateLimit:
    given.pop("per", None)
    return RateLimit(**given)


RATE_LIMIT = Record(
    "rate-limit",
    "How many requests a client may make: `requests` per `every`, and `burst` more at once.",
    RateLimit,
    Field("per", Choice("client"), "Who is counted: the client that the token names.", default="client"),
    Field("requests", _REQUESTS, "Requests in each interval."),
    Field("every", _EVERY, "The interval."),
    Field("burst", _BURST, "Requests beyond that at once."),
    build=_rate_build,
    unbuild=_rate_unbuild,
)


def _address_build(given: Given, _node: Table, _reader: Reader) -> AddressLimit:
    anonymous = given.pop("anonymous", {})
    return AddressLimit(**given, **{f"anonymous_{key}": value for key, value in anonymous.items()})


def _address_unbuild(value: AddressLimit) -> Given:
    anonymous = {"requests": value.anonymous_requests, "burst": value.anonymous_burst}
    return {
        "requests": value.requests,
        "every_s": value.every_s,
        "burst": value.burst,
        "anonymous": anonymous,
    }


class _Plain(Record):
    """A record that stays what was given; its own type is a part of another's."""

    def write(self, value: Any) -> Any:
        return {
            key: field.shape.write(value[field.attr])
            for key, field in self.fields.items()
            if field.attr in value
        }


ADDRESS_LIMIT = Record(
    "address-limit",
    "The limit for each source address, before any token is checked. Requests without a token have a bucket of their "
    "own, so they never starve clients behind the same address.",
    AddressLimit,
    Field("requests", _REQUESTS, "Requests with a token in each interval.", example=2000),
    Field("every", _EVERY, "The interval."),
    Field("burst", _BURST, "Requests with a token beyond that at once.", example=2000),
    Field(
        "anonymous",
        _Plain(
            "anonymous-limit",
            "Requests without a token.",
            None,
            Field("requests", _REQUESTS, "Requests in each interval.", default="50", example=50),
            Field("burst", _BURST, "Requests beyond that at once.", default="50", example=50),
        ),
        "The same for requests without a token.",
        default="50 requests, burst 50",
        example={"requests": 50, "burst": 50},
    ),
    build=_address_build,
    unbuild=_address_unbuild,
)


def _cors_build(given: Given, node: Table, reader: Reader) -> Cors:
    origins = given["origins"]
    if "*" in origins and len(origins) > 1:
        found = node.get("origins")
        reader.report(
            found or node, 'origins holds "*" and others; "*" already means every origin, keep one of them.'
        )
    return Cors(**given)


CORS = Record(
    "cors",
    "Which web pages may call the gateway from a browser.",
    Cors,
    Field("origins", Many(ORIGIN, least=1, ordered=True), 'Exact origins, or one "*".', needed=True),
    Field("methods", Many(Choice(*METHODS), least=1, ordered=True), "Methods that pages may use."),
    Field("headers", Many(HEADER, ordered=True), "Request headers that pages may send."),
    Field("max_age", Duration("0s", "1d", "10m"), "How long a browser may remember the answer."),
    build=_cors_build,
)

TLS = Record(
    "tls",
    "HTTPS at the gateway's own listener.",
    TlsFiles,
    Field(
        "certificate",
        FILE,
        "PEM file with the certificate and its chain.",
        needed=True,
        example="gateway.pem",
    ),
    Field("key", FILE, "PEM file with its key.", needed=True, example="gateway.key"),
)

LIMITS = Record(
    "edge-limits",
    "What the gateway accepts at most; beyond it a request is refused.",
    EdgeLimits,
    Field("body", Size("1B", "10GiB", "10MiB"), "Body of a request."),
    Field(
        "headers", Size("1KiB", "96KiB", "60KiB"), "All headers of a request together.", attr="header_bytes"
    ),
    Field("connections", Whole(1, 1_000_000, 10_000), "Connections open at once."),
)

CLIENT_RECORD = Record(
    "client",
    "A client of the platform's API. Its secret is made by `idi token --client NAME --new-secret`.",
    Client,
    Field("scopes", Many(SCOPE), "Scopes that it may ask for.", needed=True),
    named=True,
)


def _build(given: Given, node: Table, reader: Reader) -> Gateway:
    token_life = given.pop("token_life_s", None)
    if token_life is not None and "issuer" in given and isinstance(given["issuer"], ExternalIssuer):
        entry = node.entry("token_life")
        reader.report(
            entry.key if entry else node,
            "token_life is for the embedded issuer; an issuer of your own decides it itself. Remove the line.",
        )
    elif token_life is not None:
        given["issuer"] = EmbeddedIssuer(token_life)
    return Gateway(**given)


def _unbuild(value: Gateway) -> Given:
    given = {
        name: getattr(value, name)
        for name in ("issuer", "clients", "rate_limit", "address_limit", "cors", "tls", "limits")
    }
    given["token_life_s"] = value.issuer.token_life_s if isinstance(value.issuer, EmbeddedIssuer) else None
    return given


GATEWAY = Record(
    "gateway",
    "The one door from outside: tokens, limits, TLS.",
    Gateway,
    Field("issuer", ISSUER, "Who issues tokens: `embedded`, or an issuer of your own."),
    Field("token_life", Duration("10s", "1d", "5m"), "Life of a token of the embedded issuer.", default="5m"),
    Field(
        "clients",
        Named(CLIENT, CLIENT_RECORD, kind="client name", example={"pilot": {"scopes": ["jede.read"]}}),
        "Who may ask the embedded issuer for tokens.",
    ),
    Field(
        "rate_limit",
        RATE_LIMIT,
        "Limit for each client.",
        example={"requests": 200, "every": "1s", "burst": 100},
    ),
    Field(
        "address_limit",
        ADDRESS_LIMIT,
        "Limit for each source address.",
        example={"requests": 2000, "every": "1s"},
    ),
    Field("cors", CORS, "Calls from browsers.", default="none are allowed"),
    Field("tls", TLS, "HTTPS at the gateway.", default="HTTP on loopback"),
    Field("limits", LIMITS, "What a request may have at most.", example={"body": "10MiB"}),
    build=_build,
    unbuild=_unbuild,
)
