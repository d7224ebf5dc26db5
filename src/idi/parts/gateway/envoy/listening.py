"""Where the xDS server listens: a Unix socket on a laptop, a port with TLS in a cluster.

The socket is 0600 in a private folder. On the port the server proves itself by a certificate that may be replaced
while it runs: handshakes from then on use the new one, connections that are open stay. Clients prove themselves by
a token inside (`proving`), on both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from idi.parts.errors import PartError

KEEPALIVE_S = 5


class ServerCertificate:
    """A chain (PEM, leaf first) and its key (PEM)."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        self._configuration = _configuration(chain, key)
        self._taken = self._configuration

    def replace(self, chain: bytes, key: bytes) -> None:
        """For handshakes from now on. What is no certificate raises, and the one before stays."""
        self._configuration = _configuration(chain, key)

    def credentials(self) -> Any:
        return grpc.dynamic_ssl_server_credentials(self._configuration, self._fetch)

    def _fetch(self) -> Any:
        """Asked at each handshake, on a thread of grpc's; None: the same as before."""
        now = self._configuration
        if now is self._taken:
            return None
        self._taken = now
        return now


@dataclass(frozen=True, slots=True)
class TlsPort:
    address: str
    port: int
    certificate: ServerCertificate


Listen = Path | TlsPort


def listen(server: Any, where: Listen) -> None:
    """Bind; before the server starts."""
    if isinstance(where, Path):
        where.unlink(missing_ok=True)
        name = f"The xDS socket {where}"
    else:
        host = f"[{where.address}]" if ":" in where.address else where.address
        name = f"The xDS port {host}:{where.port}"
    try:
        if isinstance(where, Path):
            server.add_insecure_port(f"unix:{where}")
        else:
            server.add_secure_port(f"{host}:{where.port}", where.certificate.credentials())
    except RuntimeError as error:
        raise PartError(f"{name} cannot be opened.", str(error)) from error


def options(where: Listen) -> tuple[tuple[str, int], ...]:
    """A proxy whose machine died says nothing: on a port the server asks. The one on a socket goes with its process,
    and its end is seen."""
    if isinstance(where, Path):
        return ()
    return (
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_S * 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_S * 500),
    )


def protect(where: Listen) -> None:
    """Once it is there."""
    if isinstance(where, Path):
        os.chmod(where, 0o600)


def clear(where: Listen) -> None:
    if isinstance(where, Path):
        where.unlink(missing_ok=True)


def _configuration(chain: bytes, key: bytes) -> Any:
    # grpc would notice at the first handshake only, and then refuse everybody.
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        fits = leaf.public_key() == load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError) as error:
        raise PartError(
            "The xDS server's certificate cannot be read.", str(error), retryable=False
        ) from error
    if not fits:
        raise PartError("The xDS server's certificate and its key are not a pair.", retryable=False)
    return grpc.ssl_server_certificate_configuration([(key, chain)])
