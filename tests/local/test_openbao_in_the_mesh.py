"""Certificates of a real OpenBao in real Envoys, rotated under load: no request is lost, and what was opened
with an old certificate ends before that certificate does."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.certificates.renewal import Renewal
from idi.parts.clients.openbao import Session
from idi.parts.clients.openbao_layout import Scope
from idi.parts.gateway.interface import Identity
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from tests.support import openbao
from tests.support.envoy import TRUST_DOMAIN, Mesh, identity_of, mesh
from tests.support.envoy_upstream import upstream
from tests.support.load import run_load
from tests.support.load_plan import LoadPlan
from tests.support.scale import scale

LIFE = 12.0


@pytest.fixture
def server() -> Iterator[openbao.Server]:
    with openbao.server() as one:
        one.start()
        yield one


def identity(certificate: Certificate) -> Identity:
    return Identity(
        certificate.spiffe_id, certificate.chain, certificate.key, certificate.roots, certificate.not_after
    )


@pytest.mark.requirement("S4")
async def test_rotation_under_load_loses_nothing(server: openbao.Server) -> None:
    async with mesh() as made, upstream("cam") as cam, server.client() as client:
        scope = Scope(TRUST_DOMAIN, "dev", 3600)
        ready = await Bootstrap(client, server.keys, scope).run()
        authority = OpenBaoAuthority(Session(client, ready.credential), scope)
        made.certificate_life_s = LIFE
        made.module("jede", calls=["cam"])
        made.module("cam")
        jede = made.instance("jede", cam.port)
        made.instance("cam", cam.port)
        made.publish()
        delivered: dict[str, list[Certificate]] = {"jede-1": [], "cam-1": []}

        def deliver(node: str, certificate: Certificate) -> None:
            delivered[node].append(certificate)
            made.plane.set_identity(node, identity(certificate))

        async with Renewal(authority, deliver, LIFE) as renewal:
            for node, module in (("jede-1", "jede"), ("cam-1", "cam")):
                first = await renewal.ensure(node, identity_of(module))
                await made.proxy(node, identity=identity(first))
            seconds = scale(LIFE + 2, 10 * LIFE)
            plan = LoadPlan(
                "127.0.0.1", jede.outbound["cam"], "/x", rate=100, seconds=seconds, connections=16
            )
            caller = await authority.issue(identity_of("jede"), 3600)
            result, held = await asyncio.gather(run_load(plan), how_long_it_lives(made, caller))
        assert result.failed == 0, result.failures[:3]
        assert result.statuses == {200: plan.count}
        for node, certificates in delivered.items():
            assert len(certificates) >= seconds / (LIFE / 3), node
            assert presented(made, caller) in [serial(each) for each in delivered["cam-1"][-2:]]
        print(f"{plan.count} requests over {seconds:g} s, {len(delivered['cam-1'])} certificates each")
        assert held < LIFE, "a connection outlived the certificate that it was opened with"


def serial(certificate: Certificate) -> int:
    return x509.load_pem_x509_certificates(certificate.chain)[0].serial_number


def context(made: Mesh, caller: Certificate) -> ssl.SSLContext:
    made_of = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made_of.check_hostname = False
    made_of.load_verify_locations(cadata=caller.roots.decode())
    made_of.set_alpn_protocols(["http/1.1"])
    path = made.runtime / "caller.pem"
    path.write_bytes(caller.key + caller.chain)
    made_of.load_cert_chain(path)
    return made_of


def presented(made: Mesh, caller: Certificate) -> int:
    """The serial number of the certificate that cam's sidecar shows to a new connection."""
    port = made.instances["cam-1"].mesh_port
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context(made, caller).wrap_socket(plain) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


async def how_long_it_lives(made: Mesh, caller: Certificate) -> float:
    """Keep one connection to cam's sidecar busy until the sidecar ends it."""
    opened = time.monotonic()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", made.instances["cam-1"].mesh_port, ssl=context(made, caller)
    )
    try:
        while time.monotonic() - opened < 2 * LIFE:
            writer.write(b"GET /held HTTP/1.1\r\nhost: cam\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            if b"connection: close" in head.lower():
                break
            length = next(
                int(line.partition(b":")[2])
                for line in head.splitlines()
                if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            await asyncio.sleep(0.1)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
    return time.monotonic() - opened
