"""Modules for tests: a small HTTP server that answers who it is and what it saw, and can die or misbehave."""

import asyncio
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web


class Upstream:
    """One HTTP/1.1 module on a loopback port. `seen` are the paths that reached it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.seen: list[str] = []
        self.headers: dict[str, str] = {}
        self.hold = asyncio.Event()
        self.active = 0
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port)
        await site.start()
        server: Any = site._server
        self.port = server.sockets[0].getsockname()[1]

    async def listen_on(self, socket: str) -> None:
        """Also answer on a Unix socket."""
        assert self._runner is not None
        await web.UnixSite(self._runner, socket).start()

    async def listen_with_tls(self, chain: bytes, key: bytes) -> int:
        """Also answer on a port with TLS."""
        assert self._runner is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(chain + key)
            file.flush()
            context.load_cert_chain(file.name)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        server: Any = site._server
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and every connection, as a killed process would."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            server: Any = runner.server
            for site in list(runner.sites):
                await site.stop()
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.rel_url}")
        self.active += 1
        try:
            return await self._behave(request)
        finally:
            self.active -= 1

    async def _behave(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._echo_websocket(request)
        if path.endswith("/events"):
            return await self._stream(request)
        if path.endswith("/big"):
            return await self._pour(request)
        if path.endswith("/slow"):
            await asyncio.sleep(float(request.query.get("s", "0.3")))
        if path.endswith("/hold"):
            await self.hold.wait()
        if path.endswith("/hang-up"):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        status = int(request.query.get("status", "200"))
        body = await request.read()
        headers = dict(json.loads(request.query.get("headers", "{}")))
        return web.json_response(
            {
                "name": self.name,
                "method": request.method,
                "path": str(request.rel_url),
                "headers": {key.lower(): value for key, value in request.headers.items()},
                "bytes": len(body),
            },
            status=status,
            headers=headers,
        )

    async def _echo_websocket(self, request: web.Request) -> web.StreamResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            if message.type is WSMsgType.TEXT:
                await answer.send_str(f"{self.name}: {message.data}")
        return answer

    async def _pour(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(int(request.query.get("mib", "20"))):
                await answer.write(bytes(1 << 20))
        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for count in range(int(request.query.get("count", "3"))):
                await answer.write(f"data: {count}\n\n".encode())
                await asyncio.sleep(float(request.query.get("every", "0.05")))
        return answer


@contextlib.asynccontextmanager
async def upstream(name: str, port: int = 0) -> AsyncIterator[Upstream]:
    made = Upstream(name)
    await made.start(port)
    try:
        yield made
    finally:
        await made.stop()
