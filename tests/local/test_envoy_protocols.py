"""What passes from a client through the gateway and two proxies to a module: every protocol, both ways."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import websockets
from cryptography.hazmat.primitives import serialization

from idi.declaration.types import TlsFiles
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Authority, Mesh, free_port, mesh
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = pytest.mark.requirement("G1", "G2")

ROUTES = (
    GatewayRoute("cam", "/cam/", "/", public=True, timeout_s=1),
    GatewayRoute("cam", "/endless/", "/", public=True, timeout_s=0),
    GatewayRoute("cam", "/guarded/", "/", scopes=("cam.read",)),
)


class Doors:
    def __init__(self, m: Mesh, cam: Upstream) -> None:
        self.m, self.cam = m, cam
        assert m.gateway is not None
        self.gateway = f"http://127.0.0.1:{m.gateway.port}"
        self.sidecar = m.instances["jede-1"].url("cam")


@asynccontextmanager
async def doors(**edge: Any) -> AsyncIterator[Doors]:
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.edge(ROUTES, **edge)
        m.instance("cam", cam.port)
        m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "jede-1", GATEWAY):
            await m.proxy(node)
        yield Doors(m, cam)


async def test_websocket() -> None:
    """Through the gateway and through a sidecar, for longer than the route's time limit."""
    async with doors() as d:
        for url in (f"{d.gateway}/cam/socket", f"{d.sidecar}/socket"):
            async with websockets.connect(url.replace("http:", "ws:"), max_size=None) as socket:
                await socket.send("hello")
                assert await socket.recv() == "cam: hello"
                await asyncio.sleep(1.3)
                await socket.send("x" * 200_000)
                assert await socket.recv() == "cam: " + "x" * 200_000
        bearer = d.m.tokens.header()
        async with websockets.connect(
            f"{d.gateway}/guarded/socket".replace("http:", "ws:"), additional_headers=bearer
        ) as socket:
            await socket.send("hello")
            assert await socket.recv() == "cam: hello"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{d.gateway}/guarded/socket".replace("http:", "ws:"))
        assert refused.value.response.status_code == 401


async def test_server_sent_events_arrive_one_by_one() -> None:
    async with doors() as d, httpx.AsyncClient() as client:
        for url in (f"{d.gateway}/endless/events", f"{d.sidecar}/events"):
            loop = asyncio.get_running_loop()
            arrived = []
            async with client.stream("GET", url, params={"count": 8, "every": 0.2}) as answer:
                assert answer.headers["content-type"] == "text/event-stream"
                async for line in answer.aiter_lines():
                    if line:
                        arrived.append(loop.time())
            assert len(arrived) == 8
            # Longer than any route's limit, and not all at the end.
            assert arrived[-1] - arrived[0] > 1.2
            assert arrived[4] - arrived[0] > 0.5


async def test_http2_without_tls_and_http1_at_the_same_port() -> None:
    async with doors() as d:
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            answers = await asyncio.gather(*(client.get(f"{d.gateway}/cam/x") for _ in range(20)))
            assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{d.gateway}/cam/x")).http_version == "HTTP/1.1"


@pytest.mark.requirement("S4")
async def test_tls_at_the_gateway() -> None:
    async with mesh() as m, upstream("cam") as cam:
        certificate = m.authority.issue("spiffe://test.idi/edge", dns="localhost")
        chain, key = m.runtime / "edge.crt", m.runtime / "edge.key"
        chain.write_bytes(certificate.chain)
        key.write_bytes(certificate.key)
        assert serialization.load_pem_private_key(certificate.key, None)
        m.module("cam")
        gateway = m.edge(ROUTES, tls=TlsFiles(str(chain), str(key)))
        m.instance("cam", cam.port)
        m.publish()
        for node in ("cam-1", GATEWAY):
            await m.proxy(node)
        trust = ssl.create_default_context(cadata=m.authority.roots.decode())
        url = f"https://localhost:{gateway.port}/cam/x"
        async with httpx.AsyncClient(verify=trust, http2=True) as client:
            answer = await client.get(url)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
            assert answer.json()["headers"]["x-forwarded-proto"] == "https"
        async with httpx.AsyncClient(verify=trust) as client:
            assert (await client.get(url)).http_version == "HTTP/1.1"
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.HTTPError):
                await client.get(url.replace("https", "http"))
        # Renewed by somebody else: the files are replaced, the next connection has the new one.
        other = Authority("renewed")
        renewed = other.issue("spiffe://test.idi/edge", dns="localhost")
        for path, content in ((key, renewed.key), (chain, renewed.chain)):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").rename(path)
        fresh = ssl.create_default_context(cadata=other.roots.decode())

        async def is_renewed() -> bool:
            async with httpx.AsyncClient(verify=fresh) as client:
                try:
                    return (await client.get(url)).status_code == 200
                except httpx.HTTPError:
                    return False

        for _ in range(60):
            if await is_renewed():
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the renewed certificate is not in use")


class Echo(grpc.GenericRpcHandler):
    """One unary and one streaming method, bytes in and out; `seen` counts the calls."""

    def __init__(self) -> None:
        self.seen = 0

    def service(self, details: Any) -> Any:
        if details.method == "/test.Echo/Once":
            return grpc.unary_unary_rpc_method_handler(self._once)
        if details.method == "/test.Echo/Each":
            return grpc.stream_stream_rpc_method_handler(self._each)
        return None

    async def _once(self, request: bytes, context: Any) -> bytes:
        self.seen += 1
        if request == b"refuse":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "by the module")
        return b"echo " + request

    async def _each(self, requests: Any, _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"echo " + request


async def test_grpc() -> None:
    async with mesh() as m:
        echo = Echo()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((echo,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            m.module("cam", protocol="grpc")
            m.module("jede", calls=["cam"])
            gateway = m.edge(
                [
                    GatewayRoute("cam", "/test.Echo/", "/test.Echo/", scopes=("cam.read",), timeout_s=0),
                    GatewayRoute("cam", "/open/", "/", public=True),
                ]
            )
            m.instance("cam", port)
            jede = m.instance("jede", 1)
            m.publish()
            for node in ("cam-1", "jede-1", GATEWAY):
                await m.proxy(node)
            token = (("authorization", f"Bearer {m.tokens.token()}"),)
            for target in (f"127.0.0.1:{gateway.port}", f"127.0.0.1:{jede.outbound['cam']}"):
                async with grpc.aio.insecure_channel(target) as channel:
                    once: Any = channel.unary_unary("/test.Echo/Once")
                    assert await once(b"1", metadata=token, timeout=5) == b"echo 1"
                    each: Any = channel.stream_stream("/test.Echo/Each")(metadata=token, timeout=10)
                    for number in range(3):
                        await each.write(str(number).encode())
                        assert await each.read() == f"echo {number}".encode()
                    await each.done_writing()
                    before = echo.seen
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await once(b"refuse", metadata=token, timeout=5)
                    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                    assert refused.value.details() == "by the module"
                    assert echo.seen == before + 1
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                unknown: Any = channel.unary_unary("/test.Echo/Once")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await unknown(b"1", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            await server.stop(None)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                again: Any = channel.unary_unary("/test.Echo/Once")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await again(b"1", metadata=token, timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "{" not in (refused.value.details() or "")
        finally:
            await server.stop(None)


async def test_grpc_goes_elsewhere_when_an_instance_is_dead() -> None:
    async with mesh() as m:
        echo = Echo()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((echo,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            m.module("cam", protocol="grpc")
            m.module("jede", calls=["cam"])
            m.instance("cam", port)
            m.instance("cam", free_port(), slot=2)
            jede = m.instance("jede", 1)
            m.publish()
            for node in ("cam-1", "cam-2", "jede-1"):
                await m.proxy(node)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{jede.outbound['cam']}") as channel:
                once: Any = channel.unary_unary("/test.Echo/Once")
                answers = await asyncio.gather(*(once(b"1", timeout=5) for _ in range(40)))
            assert set(answers) == {b"echo 1"}
        finally:
            await server.stop(None)


async def test_plain_tcp_with_the_same_identities() -> None:
    async with mesh() as m:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1000):
                writer.write(b"echo " + data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            m.module("store", protocol="tcp")
            m.module("jede", calls=["store"])
            m.module("rame")
            m.instance("store", server.sockets[0].getsockname()[1])
            jede = m.instance("jede", 1)
            m.publish()
            for node in ("store-1", "jede-1"):
                await m.proxy(node)
            assert await talk(jede.outbound["store"]) == b"echo hello"
            m.modules["jede"].calls = ()
            m.publish()
            await m.plane.barrier(5)
            assert await talk(jede.outbound["store"]) == b""


async def talk(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"hello")
        async with asyncio.timeout(5):
            return await reader.read(1000)
    except ConnectionError:
        return b""
    finally:
        if not writer.is_closing():
            # A reset, so that nothing lingers.
            raw: Any = writer.get_extra_info("socket")
            raw.setsockopt(1, 13, struct.pack("ii", 1, 0))
        writer.close()
