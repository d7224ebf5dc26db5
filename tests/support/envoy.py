"""Real Envoys for tests: a plane, proxies from the wheel, certificates of a test authority.

`Mesh` holds a view of traffic that a test changes and publishes; `mesh.proxy(...)` starts a real process and
`ready` waits until the plane says that it has everything. All of it is on loopback and ends with the test.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joserfc.jwk
import joserfc.jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from idi.declaration.types import DEFAULT_PORT, AddressLimit, EdgeLimits, Protocol, RateLimit
from idi.parts.gateway.envoy.listening import Listen
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.start import ProxyStart, admin_socket, gateway_start, sidecar_start
from idi.parts.gateway.interface import Identity
from idi.traffic.types import (
    GATEWAY,
    Assignment,
    EmbeddedKeys,
    Endpoint,
    EndpointGroup,
    Gateway,
    GatewayRoute,
    Inbound,
    Outbound,
    Service,
    Sidecar,
    Traffic,
)
from idi.world.types import InstanceId

TRUST_DOMAIN = "test.idi"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def identity_of(module: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/dev/{module}"


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, name: str = "test") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.roots = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, spiffe_id: str, life: timedelta = timedelta(hours=1), dns: str = "") -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
        if dns:
            names.append(x509.DNSName(dns))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + life)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(
            spiffe_id,
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            self.roots,
            (now + life).timestamp(),
        )


ISSUER = "https://issuer.test"
AUDIENCE = "junzi"


class Tokens:
    """An issuer's key, and tokens signed by it."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key = (
            joserfc.jwk.ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256", "use": "sig"})
            if algorithm == "ES256"
            else joserfc.jwk.RSAKey.generate_key(2048, {"kid": "k1", "alg": algorithm, "use": "sig"})
        )
        self.jwks = json.dumps({"keys": [self.key.as_dict(private=False)]})

    def token(
        self, subject: str = "pilot", scope: Any = "cam.read", life_s: float = 300, **claims: Any
    ) -> str:
        now = int(time.time())
        values = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + int(life_s),
            "scope": scope,
        }
        values |= claims
        header = {"alg": self.algorithm, "kid": "k1"}
        return joserfc.jwt.encode(header, {k: v for k, v in values.items() if v is not None}, self.key)

    def header(self, *args: Any, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(*args, **claims)}"}


@dataclass
class Proxy:
    """One running Envoy."""

    node: str
    start: ProxyStart
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Module:
    name: str
    calls: tuple[str, ...] = ()
    protocol: Protocol = "http"


@dataclass
class Instance:
    id: str
    module: str
    revision: str
    app_port: int
    mesh_port: int
    outbound: dict[str, int] = field(default_factory=dict)

    def url(self, peer: str) -> str:
        return f"http://127.0.0.1:{self.outbound[peer]}"


class Mesh:
    """A small platform: modules, instances, one gateway, one plane."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.authority = Authority()
        self.tokens = Tokens()
        self.xds_socket = runtime / "xds"
        self.modules: dict[str, Module] = {}
        self.instances: dict[str, Instance] = {}
        self.out: set[str] = set()
        self.shares: dict[str, dict[str, int]] = {}
        self.gateway: Gateway | None = None
        self.certificate_life_s = 86400.0
        self.proxies: dict[str, Proxy] = {}
        self.events: list[tuple[str, bool]] = []
        self.plane: EnvoyPlane
        self.snapshot: Path | None = None
        self.where: Listen | None = None
        """Where the plane listens, if not on its socket."""
        self._plane_open = False

    async def open_plane(self) -> EnvoyPlane:
        self.plane = EnvoyPlane(
            self.where or self.xds_socket,
            self.verify,
            self.snapshot,
            lambda *event: self.events.append(event),
        )
        self._plane_open = True
        return await self.plane.__aenter__()

    async def close_plane(self) -> None:
        if self._plane_open:
            self._plane_open = False
            await self.plane.__aexit__(None, None, None)

    @staticmethod
    async def verify(token: str) -> str | None:
        return token.removeprefix("credential-of-") if token.startswith("credential-of-") else None

    # --- the view ----------------------------------------------------------------------------------

    def module(self, name: str, calls: Iterable[str] = (), protocol: Protocol = "http") -> Module:
        self.modules[name] = Module(name, tuple(calls), protocol)
        return self.modules[name]

    def instance(self, module: str, app_port: int, slot: int = 1, revision: str = "r1") -> Instance:
        made = Instance(f"{module}-{slot}", module, revision, app_port, free_port())
        made.outbound = {peer: free_port() for peer in self.modules[module].calls}
        self.instances[made.id] = made
        return made

    def edge(self, routes: Iterable[GatewayRoute] = (), **other: Any) -> Gateway:
        values: dict[str, Any] = {
            "address": "127.0.0.1",
            "port": free_port(),
            "identity": identity_of(GATEWAY),
            "routes": tuple(routes),
            "issuer": EmbeddedKeys(ISSUER, AUDIENCE, self.tokens.jwks, str(self.runtime / "issuer")),
            "rate_limit": RateLimit(),
            "address_limit": AddressLimit(100_000, 1.0, 100_000, 100_000, 100_000),
            "limits": EdgeLimits(),
        }
        self.gateway = Gateway(**(values | other))
        return self.gateway

    def assignment(self, service: str) -> Assignment:
        groups: dict[str, list[Endpoint]] = {}
        for each in self.instances.values():
            if each.module == service and each.id not in self.out:
                groups.setdefault(each.revision, []).append(Endpoint(each.id, "127.0.0.1", each.mesh_port))
        shares = self.shares.get(service, {})
        return Assignment(
            service,
            tuple(
                EndpointGroup(revision, shares.get(revision, len(group)), tuple(group))
                for revision, group in groups.items()
            ),
        )

    def traffic(self) -> Traffic:
        sidecars = {}
        for each in self.instances.values():
            module = self.modules[each.module]
            allowed = [
                identity_of(name) for name, other in self.modules.items() if each.module in other.calls
            ]
            if self.gateway and any(route.service == each.module for route in self.gateway.routes):
                allowed.append(identity_of(GATEWAY))
            inbound = Inbound(
                DEFAULT_PORT,
                module.protocol,
                "127.0.0.1",
                each.mesh_port,
                each.app_port,
                tuple(allowed),
                reserved=("/reserved" * 100,),  # nobody's here; a proxy takes it all the same
            )
            outbound = tuple(
                Outbound(peer, self.modules[peer].protocol, port) for peer, port in each.outbound.items()
            )
            sidecars[InstanceId(each.id)] = Sidecar(
                InstanceId(each.id), each.module, identity_of(each.module), (inbound,), outbound
            )
        return Traffic(
            TRUST_DOMAIN,
            {
                name: Service(name, name, each.protocol, identity_of(name))
                for name, each in self.modules.items()
            },
            {name: self.assignment(name) for name in self.modules},
            sidecars,
            self.gateway,
            self.certificate_life_s,
        )

    def publish(self) -> None:
        self.plane.publish(self.traffic())

    def change_gateway(self, **values: Any) -> None:
        assert self.gateway is not None
        self.gateway = replace(self.gateway, **values)
        self.publish()

    # --- the processes -----------------------------------------------------------------------------

    async def proxy(self, node: str, *, identity: Identity | None = None, ready: bool = True) -> Proxy:
        """Start the sidecar of an instance, or the gateway, with a certificate unless told otherwise."""
        if node == GATEWAY:
            assert self.gateway is not None
            module = GATEWAY
            start = gateway_start(
                f"credential-of-{node}", self.runtime, self.xds_socket, self.gateway.limits.connections
            )
        else:
            module = self.instances[node].module
            start = sidecar_start(node, f"credential-of-{node}", self.runtime, self.xds_socket)
        self.plane.set_identity(node, identity or self.authority.issue(identity_of(module)))
        proxy = self.launch(node, start)
        if ready:
            await self.ready(node)
        return proxy

    def launch(self, node: str, start: ProxyStart) -> Proxy:
        for path, content in start.files.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        log = self.runtime / f"{node}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(start.argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.proxies[node] = Proxy(node, start, process, log)
        return self.proxies[node]

    async def ready(self, *nodes: str, timeout_s: float = 15.0) -> None:
        try:
            await until(lambda: all(self.plane.connected().get(node) for node in nodes), timeout_s)
        except TimeoutError:
            words = "\n".join(f"--- {node}\n{self.proxies[node].text()[-2000:]}" for node in nodes)
            raise AssertionError(
                f"not ready: {self.plane.connected()}; rejected: {self.plane.rejections()}\n{words}"
            ) from None

    def admin(self, node: str) -> Path:
        return admin_socket(self.runtime, node)

    def stop(self) -> None:
        for proxy in self.proxies.values():
            proxy.process.kill()
        for proxy in self.proxies.values():
            proxy.process.wait()


async def until(condition: Callable[[], object], timeout_s: float = 10.0, every_s: float = 0.005) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def mesh(snapshot: bool = False) -> AsyncIterator[Mesh]:
    """A mesh with its plane open; the runtime folder is short enough for sockets."""
    runtime = Path(tempfile.mkdtemp(prefix="idi-", dir="/tmp"))
    made = Mesh(runtime)
    made.snapshot = runtime / "snapshot" if snapshot else None
    try:
        await made.open_plane()
        yield made
    finally:
        made.stop()
        await made.close_plane()
        shutil.rmtree(runtime, ignore_errors=True)
