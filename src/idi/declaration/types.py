"""What a user declared, as frozen values.

The loader turns `platform.yaml` into one `Platform` for one environment; from there on no room
sees YAML, text positions (except through `Platform.origins`) or a dictionary used as configuration.
Units are in the names: `_s` seconds, `_bytes` bytes, `_millicores` thousandths of a CPU core,
`_ratio` a share between 0 and 1. Everything is hashable and compared by value, which is what makes
"the same declaration gives the same bytes" a property that can be tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from idi.declaration.frozen import Frozen
from idi.declaration.readiness import DEFAULT_PORT as DEFAULT_PORT
from idi.declaration.readiness import Readiness as Readiness

ModuleName = NewType("ModuleName", str)
"""Lower-case name of a module, `[a-z]([-a-z0-9]{0,30}[a-z0-9])?`, never one of `RESERVED_NAMES`."""

Protocol = Literal["http", "grpc", "tcp"]
Strategy = Literal["rolling", "canary", "blue-green", "recreate"]

RESERVED_NAMES = frozenset(
    {"gateway", "control", "xds", "idi", "openbao", "relay", "broker", "console", "issuer", "bus", "events"}
)
"""Names that IDI's own parts carry in identities, logs, status and variables; no module may take one."""

OWN_EVENTS = "idi."
"""With what the platform's own topics begin; no event type may."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from, for `idi plan`: `default`, `file`, `environment` or `overlay`."""

    kind: Literal["default", "file", "environment", "overlay"]
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.kind in ("default", "overlay"):
            return "idi config set" if self.kind == "overlay" else self.kind
        return f"{self.file}:{self.line}:{self.column}"


# --- references: ${peer.cam.address}, ${port}, ${data_dir} ... -------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${...}`: the dotted path as written, already checked to name something that exists."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """Text with references; a plain text is a template of one literal part."""

    parts: tuple[str | Reference, ...]

    def references(self) -> tuple[Reference, ...]:
        return tuple(part for part in self.parts if isinstance(part, Reference))


# --- gateway ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbeddedIssuer:
    """IDI's own OAuth2/OIDC issuer behind the gateway."""

    token_life_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ExternalIssuer:
    """Any OIDC issuer: keys from `jwks_url` (found by discovery at `url` where empty)."""

    url: str
    audience: str
    jwks_url: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the platform's API and the scopes it may ask for."""

    name: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests` per `every_s`, plus `burst` more at once, for each client (token subject)."""

    requests: int = 200
    every_s: float = 1.0
    burst: int = 100


@dataclass(frozen=True, slots=True)
class AddressLimit:
    """The limit before any token is checked, for each source address.

    Requests without a token and requests with one have a bucket each, so that a flood without
    tokens never starves clients behind the same address.
    """

    requests: int = 2000
    every_s: float = 1.0
    burst: int = 2000
    anonymous_requests: int = 50
    anonymous_burst: int = 50


@dataclass(frozen=True, slots=True)
class Cors:
    """Who may call from a browser: exact origins, or one `*`."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = ("authorization", "content-type")
    max_age_s: float = 600.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its key (PEM files) for the gateway's own listener."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What the gateway accepts at most."""

    body_bytes: int = 10 * 1024 * 1024
    header_bytes: int = 60 * 1024
    connections: int = 10_000


@dataclass(frozen=True, slots=True)
class Gateway:
    issuer: EmbeddedIssuer | ExternalIssuer = EmbeddedIssuer()
    clients: Mapping[str, Client] = field(default_factory=Frozen)
    rate_limit: RateLimit = RateLimit()
    address_limit: AddressLimit = AddressLimit()
    cors: Cors | None = None
    tls: TlsFiles | None = None
    limits: EdgeLimits = EdgeLimits()


# --- modules ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Port:
    """A port that the module itself listens on (loopback; IDI chooses the number).

    The default port's number is in `PORT`; each further one is `${port.<name>}`.
    """

    name: str
    protocol: Protocol = "http"


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Route:
    """One way from the gateway to a module.

    `path` is a prefix and ends with `/`; `rewrite` replaces it before the module sees it.
    `public` routes need no token. `timeout_s` 0 means none (streams).
    """

    path: str
    rewrite: str = "/"
    host: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    scopes: tuple[str, ...] = ()
    public: bool = False
    timeout_s: float = 15.0
    body_bytes: int = 0
    port: str = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Scale:
    """Autoscaling where the target has it (Kubernetes): up to `max` above `cpu_ratio` of the CPU request, and down once
    fewer have been enough for `down_after_s`."""

    max: int
    cpu_ratio: float
    down_after_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Storage:
    size_bytes: int
    data_version: int = 1


@dataclass(frozen=True, slots=True)
class Resources:
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Slo:
    errors_ratio: float = 0.01
    p99_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Release:
    strategy: Strategy = "rolling"
    steps: tuple[float, ...] = ()
    bake_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Module:
    """One module as one environment wants it.

    `run` is a command line (run by a shell) for a local target, `image` an image or a folder with a
    Dockerfile for a cluster. `calls` names modules and externals. `config` becomes environment
    variables, values may hold references. `secrets` maps a variable to a path in the secret store; the
    variables in `secret_files` hold the path of a file (memory-backed) with the secret, not the secret.
    `handles` maps event types to the paths at which they are posted; those under `consumes` it takes from
    the broker by itself. `watch` are files, folders and patterns for whose changes it is restarted.
    """

    name: ModuleName
    run: Template | None = None
    image: str = ""
    instances: int = 1
    ports: tuple[Port, ...] = (Port(DEFAULT_PORT),)
    calls: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    config: Mapping[str, Template] = field(default_factory=Frozen)
    secrets: Mapping[str, str] = field(default_factory=Frozen)
    secret_files: tuple[str, ...] = ()
    readiness: Readiness = field(default_factory=Readiness)
    grace_s: float = 10.0
    storage: Storage | None = None
    pool: str = "general"
    scale: Scale | None = None
    resources: Resources = Resources()
    slo: Slo = Slo()
    release: Release = Release()
    publishes: tuple[str, ...] = ()
    handles: Mapping[str, str] = field(default_factory=Frozen)
    consumes: tuple[str, ...] = ()
    watch: tuple[str, ...] = (".",)

    def uses_events(self) -> bool:
        return bool(self.publishes or self.handles or self.consumes)

    def port(self, name: str) -> Port:
        return next(port for port in self.ports if port.name == name)


@dataclass(frozen=True, slots=True)
class External:
    """Something IDI does not run, called like a module through the caller's sidecar."""

    name: str
    host: str
    port: int
    protocol: Protocol = "tcp"


@dataclass(frozen=True, slots=True)
class EventType:
    """An event type on the bus: how long and how many are kept, and how delivery is tried.

    `most` events at most, 0 for as many as there is room for. Within `deduplicate_s` an event of the same source and id
    is taken once. `order` names an attribute: events with the same value of it are handed over one after another.
    """

    name: str
    keep_s: float = 7 * 86400.0
    limit_bytes: int = 1 << 30
    most: int = 0
    deduplicate_s: float = 120.0
    full: Literal["refuse", "drop-oldest"] = "refuse"
    durable: bool = True
    attempts: int = 8
    backoff_first_s: float = 1.0
    backoff_last_s: float = 300.0
    order: str = ""


# --- targets and the whole -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalTarget:
    pass


@dataclass(frozen=True, slots=True)
class Images:
    """IDI's own images, by digest."""

    control: str
    sidecar: str
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """What all pods of the environment may ask for together; 0: as `demand.QUOTA` has it."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    pods: int = 0


@dataclass(frozen=True, slots=True)
class Seal:
    """A Secret of the user's in the environment's namespace, and which of its keys opens OpenBao's store; `previous` is
    the one before it, while the store may still be closed with that."""

    secret: str
    key: str = "seal.key"
    previous: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesTarget:
    """`namespace` empty: `PLATFORM-ENVIRONMENT`. `storage_class` empty: the cluster's default. `gateway` is the type of
    the gateway's Service, `dns` where name servers are that are no pods of kube-system, `profile` whose it is. `gpu` is
    what its nodes call a GPU. Without `seal` control makes OpenBao's seal key itself, on its volume."""

    context: str
    namespace: str = ""
    profile: Literal["", "gke", "eks", "aks"] = ""
    images: Images | None = None
    storage_class: str = ""
    gateway: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    dns: tuple[str, ...] = ()
    gpu: str = "nvidia.com/gpu"
    quota: Quota = Quota()
    seal: Seal | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """Life of a leaf certificate; it is renewed at a third of that."""

    life_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class Platform:
    """The declaration as one environment sees it: defaults filled in, overrides applied, checked.

    `origins` maps a dotted path (`modules.jede.instances`) to where its value came from; a path that
    is missing has its default. `modules` keeps the order of the file.
    """

    name: str
    environment: str
    target: LocalTarget | KubernetesTarget
    modules: Mapping[ModuleName, Module]
    gateway: Gateway = Gateway()
    certificates: Certificates = Certificates()
    externals: Mapping[str, External] = field(default_factory=Frozen)
    events: Mapping[str, EventType] = field(default_factory=Frozen)
    origins: Mapping[str, Origin] = field(default_factory=Frozen, compare=False, hash=False)

    @property
    def namespace(self) -> str:
        """Where it runs on a cluster."""
        named = self.target.namespace if isinstance(self.target, KubernetesTarget) else ""
        return named or f"{self.name}-{self.environment}"

    @property
    def trust_domain(self) -> str:
        return f"{self.name}.idi"

    def identity(self, workload: str) -> str:
        """SPIFFE identity of a module (or of IDI's own part, e.g. `gateway`) in this environment."""
        return f"spiffe://{self.trust_domain}/{self.environment}/{workload}"

    def every_scope(self) -> tuple[str, ...]:
        """All scopes any route or client of this environment names, sorted."""
        routed = {
            scope for module in self.modules.values() for route in module.routes for scope in route.scopes
        }
        granted = {scope for client in self.gateway.clients.values() for scope in client.scopes}
        return tuple(sorted(routed | granted))
