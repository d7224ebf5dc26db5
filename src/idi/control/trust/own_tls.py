"""TLS of control's own servers and calls: contexts that take a new certificate while they are in use."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

from idi.parts.certificates.serving import Served, ServingAuthority
from idi.parts.gateway.envoy.listening import ServerCertificate
from idi.parts.gateway.envoy.replicas.plane import ReplicatedPlane

RENEW_S = 3600.0


def tls_of(served: Served) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load(context, served.chain, served.key)
    return context


def load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """ssl takes certificates from files only; this one is in memory, and gone at once."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(chain + key)
        file.flush()
        context.load_cert_chain(file.name)


async def renewed(
    serving: ServingAuthority,
    names: Sequence[str],
    certificate: ServerCertificate,
    plane: ReplicatedPlane,
    tls: ssl.SSLContext,
) -> None:
    """Long before what control's servers show has ended, until cancelled."""
    while True:
        await asyncio.sleep(RENEW_S)
        served = serving.issue(names)
        certificate.replace(served.chain, served.key)
        plane.set_certificate(served.chain, served.key)
        load(tls, served.chain, served.key)
