"""Control's own connections in the mesh: to the identity that is meant, or to nobody."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from idi.control.trust.caller import Caller
from idi.control.trust.own_tls import load
from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.simulator import SimulatedAuthority
from idi.parts.errors import PartError

pytestmark = [pytest.mark.requirement("S4"), pytest.mark.asyncio]

BUS, CAM, CONTROL = (f"spiffe://shop.idi/staging/{name}" for name in ("bus", "cam", "control"))


def server_of(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, certificate.chain, certificate.key)
    context.load_verify_locations(cadata=certificate.roots.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def said(tls: ssl.SSLContext, server: Certificate) -> tuple[str, list[bytes]]:
    """What a connection to this server comes to, and what the server read."""
    heard: list[bytes] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_of(server)) as listening:
        port = listening.sockets[0].getsockname()[1]
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1")
        except ssl.SSLError as error:
            return str(error), heard
        writer.write(b"password")
        await writer.drain()
        async with asyncio.timeout(5):
            await ended.wait()
        writer.close()
        return "", heard


async def test_a_password_goes_to_the_identity_that_is_meant_and_to_no_other() -> None:
    authority = SimulatedAuthority("shop.idi", "staging")
    caller = Caller()
    caller.take(await authority.issue(CONTROL, 3600))
    assert await said(caller.to(BUS), await authority.issue(BUS, 3600)) == ("", [b"password"])
    why, heard = await said(caller.to(BUS), await authority.issue(CAM, 3600))
    assert "another identity" in why
    assert b"password" not in heard
    why, heard = await said(caller.to(BUS), await SimulatedAuthority("shop.idi", "staging").issue(BUS, 3600))
    assert "self-signed" in why or "unable to get" in why or "verify failed" in why, why
    assert b"password" not in heard


async def test_a_context_takes_the_next_certificate() -> None:
    authority = SimulatedAuthority("shop.idi", "staging")
    caller = Caller()
    with pytest.raises(PartError, match="no certificate yet"):
        caller.to(BUS)
    caller.take(await authority.issue(CONTROL, 3600))
    context = caller.to(BUS)
    another = SimulatedAuthority("shop.idi", "staging")
    caller.take(await another.issue(CONTROL, 3600))
    assert caller.to(BUS) is context
    assert (await said(context, await another.issue(BUS, 3600)))[0] == ""
