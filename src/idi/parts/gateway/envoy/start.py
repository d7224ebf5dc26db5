"""How to start an Envoy: the program, its arguments and its bootstrap file.

Many run side by side on one machine and one user, so nothing is shared: no hot restart, no base id, no admin
port. The log goes to stderr, a line each; where that ends up is the matter of whoever starts it. In a cluster the
same program takes its files from a folder that is the same in every pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.arguments import (
    GATEWAY_DRAIN_S,
    GATEWAY_FILE,
    SIDECAR_DRAIN_S,
    SIDECAR_FILE,
    arguments,
)
from idi.parts.gateway.envoy.binary import ENVOY
from idi.parts.gateway.envoy.render.bootstrap import MIB, bootstrap
from idi.parts.gateway.envoy.render.cluster_bootstrap import (
    ROOTS_FILE,
    ClusterXds,
    cluster_bootstrap,
    roots_subscription,
)
from idi.traffic.types import GATEWAY

MAX_SOCKET_PATH = 104
SIDECAR_CONNECTIONS = 10_000
SIDECAR_HEAP_BYTES = 512 * MIB
GATEWAY_HEAP_BYTES = 2048 * MIB


@dataclass(frozen=True, slots=True)
class ProxyStart:
    """`files` (path -> content) are written 0600 before `argv` is run."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    admin_socket: str = ""


def admin_socket(runtime_dir: Path, node: str) -> Path:
    return runtime_dir / f"{node}.admin"


def sidecar_start(node: str, credential: str, runtime_dir: Path, xds_socket: Path) -> ProxyStart:
    """The sidecar of one instance: one worker thread."""
    limits = (SIDECAR_CONNECTIONS, SIDECAR_HEAP_BYTES)
    return _start(node, credential, runtime_dir, xds_socket, *limits, workers=1, drain_s=SIDECAR_DRAIN_S)


def gateway_start(
    credential: str, runtime_dir: Path, xds_socket: Path, connections: int, workers: int = 2
) -> ProxyStart:
    """The gateway; `connections` is what it accepts at most (`EdgeLimits.connections`)."""
    limits = (connections, GATEWAY_HEAP_BYTES)
    return _start(
        GATEWAY, credential, runtime_dir, xds_socket, *limits, workers=workers, drain_s=GATEWAY_DRAIN_S
    )


def _start(
    node: str,
    credential: str,
    runtime_dir: Path,
    xds_socket: Path,
    connections: int,
    heap_bytes: int,
    *,
    workers: int,
    drain_s: int,
) -> ProxyStart:
    admin = admin_socket(runtime_dir, node)
    for path in (admin, xds_socket):
        if len(str(path).encode()) >= MAX_SOCKET_PATH:
            raise PartError(
                f"The socket path {path} is longer than the {MAX_SOCKET_PATH - 1} bytes that the system takes.",
                "Choose a shorter runtime folder (XDG_RUNTIME_DIR).",
                retryable=False,
            )
    config = runtime_dir / f"{node}.envoy.json"
    content = bootstrap(
        node, credential, str(xds_socket), str(admin), connections=connections, heap_bytes=heap_bytes
    )
    argv = (str(ENVOY.find()), *arguments(str(config), workers, drain_s))
    return ProxyStart(argv, {str(config): content}, admin_socket=str(admin))


def cluster_files(
    xds: ClusterXds, roots: bytes, admin_socket: str, gateway_connections: int
) -> Mapping[str, bytes]:
    """What lies in the folder of every proxy in a cluster: a bootstrap for sidecars, one for gateways, and the roots
    of the plane that both watch."""
    return {
        ROOTS_FILE: roots_subscription(roots),
        SIDECAR_FILE: cluster_bootstrap(
            xds, admin_socket, connections=SIDECAR_CONNECTIONS, heap_bytes=SIDECAR_HEAP_BYTES
        ),
        GATEWAY_FILE: cluster_bootstrap(
            xds, admin_socket, connections=gateway_connections, heap_bytes=GATEWAY_HEAP_BYTES
        ),
    }
