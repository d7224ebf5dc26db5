"""What traffic should do, in no vendor's words.

A `Traffic` is the whole view: services with their shape, who may call whom, what each sidecar and the
gateway listens on. Endpoints stand apart in `Assignment`, one per service, because they change with
every birth and death of an instance and must reach every proxy without anything else being computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from idi.declaration.types import AddressLimit as AddressLimit
from idi.declaration.types import Cors, EdgeLimits, ExternalIssuer, HeaderMatch, Protocol, RateLimit, TlsFiles
from idi.world.types import InstanceId

GATEWAY = "gateway"
"""Workload of the gateway's proxies, and the node name of the one on a laptop."""


CONTROL = "control"
"""Workload of control, where it calls somebody through the mesh."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    instance: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class EndpointGroup:
    """The ready endpoints of one revision; `weight` is its share among the groups (0: no traffic)."""

    revision: str
    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the instances of one service are now."""

    service: str
    groups: tuple[EndpointGroup, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """One port of one module (`cam`, or `cam.admin` for a further port), or an external.

    `identity` is the SPIFFE id that its certificate must carry; empty for externals, which are reached
    in plain at the fixed `address`.
    """

    name: str
    module: str
    protocol: Protocol
    identity: str
    address: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Inbound:
    """One mesh port of a sidecar: mutual TLS in, plain to the module's own loopback port.

    `allowed` are the SPIFFE ids that may call; anyone else gets 403 (HTTP) or a closed connection. `reserved` are
    paths that `reserved_for` alone may call: who is allowed everything else could post there what it likes.
    """

    port_name: str
    protocol: Protocol
    mesh_address: str
    mesh_port: int
    app_port: int
    allowed: tuple[str, ...]
    reserved: tuple[str, ...] = ()
    reserved_for: str = ""


@dataclass(frozen=True, slots=True)
class Outbound:
    """One loopback port of a sidecar by which its module reaches `service`."""

    service: str
    protocol: Protocol
    listen_port: int


@dataclass(frozen=True, slots=True)
class Sidecar:
    instance: InstanceId
    module: str
    identity: str
    inbound: tuple[Inbound, ...]
    outbound: tuple[Outbound, ...]


@dataclass(frozen=True, slots=True)
class GatewayRoute:
    """One route: what it matches, what it needs, where it goes. Order in `Gateway.routes` is the
    order of matching (longest path first, then more conditions first)."""

    service: str
    path: str
    rewrite: str
    host: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    scopes: tuple[str, ...] = ()
    public: bool = False
    timeout_s: float = 15.0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A server by its name and port, which proves that name by a certificate of the roots in a file (PEM) that
    lies where the gateway runs."""

    host: str
    port: int
    roots: str


@dataclass(frozen=True, slots=True)
class EmbeddedKeys:
    """What the gateway checks tokens of the embedded issuer with, and where it forwards its routes.

    `jwks` is the public key set (JSON); `socket` the Unix socket of the issuer's HTTP server, reached
    under `/oauth2/` and `/.well-known/`, or where it is when it runs on another machine.
    """

    issuer: str
    audience: str
    jwks: str
    socket: str | TlsServer


@dataclass(frozen=True, slots=True)
class Gateway:
    address: str
    port: int
    identity: str
    routes: tuple[GatewayRoute, ...]
    issuer: EmbeddedKeys | ExternalIssuer
    rate_limit: RateLimit
    address_limit: AddressLimit
    limits: EdgeLimits
    cors: Cors | None = None
    tls: TlsFiles | None = None
    access_log: str = ""
    """File of the access log; empty: none."""


@dataclass(frozen=True, slots=True)
class Traffic:
    trust_domain: str
    services: Mapping[str, Service] = field(default_factory=dict)
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    sidecars: Mapping[InstanceId, Sidecar] = field(default_factory=dict)
    gateway: Gateway | None = None
    certificate_life_s: float = 86400.0
    """Life of a leaf certificate: connections between proxies end before theirs does."""
    gateways: tuple[str, ...] = (GATEWAY,)
    """The nodes that are the gateway: all alike, each a proxy of its own."""
