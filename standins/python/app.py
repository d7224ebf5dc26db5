"""The stand-in's endpoints and its life from start to SIGTERM.

Failures come from a counter, not from chance: request n fails where the fraction of (seed + n) x golden ratio
lies below the rate. That spreads failures evenly, hits the rate within one or two requests however few there
are, and comes out the same in every run and in every language's stand-in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from standins.python.client import Pool, Unreachable, address_of
from standins.python.events import Events
from standins.python.http1 import Answer, Connections
from standins.python.messages import Problem, Request, Response, Stream, json_response
from standins.python.settings import Settings, Wrong, duration, rate, whole

FORWARDED = ("traceparent", "tracestate", "baggage", "x-request-id")
MAX_HELD_MB = 4096
MAX_BIG = 1024 * 1024 * 1024
PIECE = 64 * 1024
GOLDEN = 2654435769  # 2**32 / golden ratio

Result = Answer | Coroutine[Any, Any, Answer]
Endpoint = Callable[[Request], Result]


class Failures:
    """Says evenly and repeatably which requests fail."""

    def __init__(self, seed: int) -> None:
        self.count = seed

    def next(self, wanted: float) -> bool:
        self.count += 1
        return (self.count * GOLDEN) % 2**32 < wanted * 2**32


def touch_memory(megabytes: int) -> bytearray:
    """Memory that is really there: every page is written to."""
    held = bytearray(megabytes * 1024 * 1024)
    for at in range(0, len(held), 4096):
        held[at] = 1
    return held


class App:
    """Answers requests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.who = {"module": settings.module, "instance": settings.instance, "version": settings.version}
        self.ready_at = time.monotonic() + settings.ready_after
        self.failures = Failures(settings.seed)
        self.asked_failures = Failures(settings.seed)
        self.pool = Pool()
        self.events = Events(settings, self.pool, self.who)
        self.held: list[bytearray] = []
        self.held_mb = 0
        self.connections = Connections(self.handle, self.log_request if settings.log_requests else None)
        self.plain = not settings.slow and not settings.fail_rate
        self.routes: dict[str, Endpoint] = {
            "": self.root,
            "ready": self.ready,
            "unready": self.unready,
            "echo": self.echo,
            "call": self.call,
            "slow": self.slow,
            "fail": self.fail,
            "crash": self.crash,
            "memory": self.memory,
            "cpu": self.cpu,
            "sse": self.sse,
            "ws": self.websocket,
            "big": self.big,
            "headers": self.headers,
            "publish": self.events.publish,
            "events": self.take_or_list,
        }

    def handle(self, request: Request) -> Result:
        first, slash, request.rest = request.path[1:].partition("/")
        route = self.routes.get(first)
        if (
            route is None
            or (slash and first not in ("echo", "cpu", "call", "publish", "events"))
            or request.path[:1] != "/"
        ):
            raise Problem(404, f"this stand-in has no {request.path}", **self.who)
        if self.plain or first in ("ready", "unready"):
            return self.run(route, request)
        return self.misbehave(route, request)

    def run(self, route: Endpoint, request: Request) -> Result:
        try:
            return route(request)
        except Wrong as wrong:
            raise Problem(400, str(wrong), **self.who) from None

    async def misbehave(self, route: Endpoint, request: Request) -> Answer:
        """What STANDIN_SLOW and STANDIN_FAIL_RATE do to every request but those for readiness."""
        if self.settings.slow:
            await asyncio.sleep(self.settings.slow)
        if self.failures.next(self.settings.fail_rate):
            raise Problem(self.settings.fail_status, "failed as STANDIN_FAIL_RATE asks", **self.who)
        result = self.run(route, request)
        return await result if isinstance(result, Coroutine) else result

    # -- endpoints

    def root(self, _request: Request) -> Result:
        return json_response(self.who | {"env": self.settings.environment, "peers": self.settings.peers})

    def ready(self, _request: Request) -> Result:
        if self.connections.draining:
            raise Problem(503, "on its way out", **self.who)
        wait = self.ready_at - time.monotonic()
        if wait > 0:
            raise Problem(503, f"not ready for another {wait:.2f} s", **self.who)
        return json_response(self.who | {"ready": True})

    def unready(self, request: Request) -> Result:
        seconds = duration(request.parameter("for", "2s"))
        self.ready_at = time.monotonic() + seconds
        return json_response(self.who | {"unready_for": seconds})

    def echo(self, request: Request) -> Result:
        value: dict[str, object] = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": request.header_map(),
        }
        try:
            value["body"] = request.body.decode()
        except UnicodeDecodeError:
            value["body"] = None
            value["body_base64"] = base64.b64encode(request.body).decode()
        return json_response(value | self.who)

    def headers(self, request: Request) -> Result:
        value: dict[str, list[str]] = {}
        for name, text in request.headers:
            value.setdefault(name, []).append(text)
        return json_response(self.who | {"headers": value})

    async def call(self, request: Request) -> Answer:
        peer, _, path = request.rest.partition("/")
        url = self.settings.peer_url(peer) if peer else None
        if not url:
            raise Problem(
                404,
                f"no peer '{peer}': there is no variable {peer.upper().replace('-', '_')}_URL",
                **self.who,
            )
        try:
            host, port, base = address_of(url)
        except ValueError as error:
            raise Problem(502, f"{peer} is at {error}", **self.who) from None
        target = base.rstrip("/") + "/" + (path or "echo")
        if request.query:
            target += "?" + request.query
        headers = [
            (name, value) for name, value in request.headers if name in FORWARDED or name == "content-type"
        ]
        try:
            reply = await self.pool.request(
                host,
                port,
                request.method,
                target,
                headers,
                request.body,
                self.settings.call_timeout,
            )
        except Unreachable as error:
            raise Problem(502, f"{peer} can't be reached: {error}", peer=peer, **self.who) from None
        text = reply.body.decode("utf-8", "replace")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return json_response(self.who | {"peer_status": reply.status, "peer": value})

    def take_or_list(self, request: Request) -> Result:
        return self.events.take(request) if request.method == "POST" else self.events.listing(request)

    async def slow(self, request: Request) -> Answer:
        try:
            seconds = duration(request.parameter("for", "250ms"))
        except Wrong as wrong:
            raise Problem(400, str(wrong), **self.who) from None
        await asyncio.sleep(seconds)
        return json_response(self.who | {"slept": seconds})

    def fail(self, request: Request) -> Result:
        status = whole(request.parameter("status", "500"), 400, 599)
        if self.asked_failures.next(rate(request.parameter("rate", "1"))):
            raise Problem(status, "failed as asked", **self.who)
        return json_response(self.who | {"failed": False})

    def crash(self, request: Request) -> Result:
        os._exit(whole(request.parameter("code", "1"), 0, 255))

    def memory(self, request: Request) -> Result:
        megabytes = whole(request.parameter("mb", "50"), 0, MAX_HELD_MB)
        seconds = duration(request.parameter("for", "10s"))
        if self.held_mb + megabytes > MAX_HELD_MB:
            raise Problem(429, f"{MAX_HELD_MB} MiB at most are held at once", **self.who)
        self.hold(megabytes, seconds)
        return json_response(self.who | {"held_mb": self.held_mb})

    def hold(self, megabytes: int, seconds: float | None) -> None:
        held = touch_memory(megabytes)
        self.held.append(held)
        self.held_mb += megabytes
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.release, held, megabytes)

    def release(self, held: bytearray, megabytes: int) -> None:
        self.held = [other for other in self.held if other is not held]
        self.held_mb -= megabytes

    async def cpu(self, request: Request) -> Answer:
        """Burns processor time in slices of 2 ms, so that other requests are still answered, if slowly."""
        try:
            seconds = min(duration(request.parameter("for", "200ms")), 60.0)
        except Wrong as wrong:
            raise Problem(400, str(wrong), **self.who) from None
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            slice_end = min(end, now + 0.002)
            while time.monotonic() < slice_end:
                pass
            await asyncio.sleep(0)
        return json_response(self.who | {"path": request.path, "burnt": seconds})

    def sse(self, request: Request) -> Result:
        count = whole(request.parameter("count", "3"), 0, 100_000)
        every = duration(request.parameter("every", "50ms"))

        async def events() -> AsyncIterator[bytes]:
            for number in range(1, count + 1):
                if number > 1:
                    await asyncio.sleep(every)
                data = json.dumps(self.who | {"n": number})
                yield f"id: {number}\nevent: tick\ndata: {data}\n\n".encode()

        return Stream(events(), "text/event-stream")

    def websocket(self, request: Request) -> Result:
        from standins.python.websocket import upgrade  # brings hashlib, which few processes need

        return upgrade(request)

    def big(self, request: Request) -> Result:
        size = whole(request.parameter("bytes", "100000"), 0, MAX_BIG)
        if size <= PIECE:
            return Response(200, b"x" * size, "application/octet-stream")

        async def pieces() -> AsyncIterator[bytes]:
            piece, left = b"x" * PIECE, size
            while left:
                yield piece if left >= PIECE else piece[:left]
                left -= min(left, PIECE)

        return Stream(pieces(), "application/octet-stream", size)

    # -- logs

    def log(self, level: str, msg: str, **more: object) -> None:
        line = (
            {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "msg": msg}
            | self.who
            | more
        )
        try:
            sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
            sys.stdout.flush()
        except OSError:
            pass  # whoever read this has gone; the module goes on

    def log_request(self, request: Request, status: int) -> None:
        more: dict[str, object] = {"method": request.method, "path": request.path, "status": status}
        more["ms"] = round((time.monotonic() - request.began) * 1000, 2)
        trace = (request.header("traceparent") or "").split("-")
        if len(trace) >= 3:
            more |= {"trace_id": trace[1], "span_id": trace[2]}
        if (request_id := request.header("x-request-id")) is not None:
            more["request_id"] = request_id
        self.log("error" if status >= 500 else "info", "request", **more)


async def serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    app = App(settings)
    stop = asyncio.Event()

    def ended(number: signal.Signals) -> None:
        if settings.ignore_term and number == signal.SIGTERM:
            app.log("warning", "SIGTERM ignored as STANDIN_IGNORE_TERM asks")
        else:
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended, number)
    if settings.memory_mb:
        app.hold(settings.memory_mb, None)
    if settings.crash_after:
        loop.call_later(settings.crash_after, os._exit, settings.crash_code)
    try:
        server = await loop.create_server(
            app.connections.protocol, settings.bind, settings.port, backlog=1024
        )
    except OSError as error:
        print(
            f"standin: can't listen on {settings.bind}:{settings.port}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    app.log("info", "started", port=settings.port, pid=os.getpid(), env=settings.environment)
    await stop.wait()
    app.connections.draining = True
    await asyncio.sleep(0.005)  # takes in what the kernel has accepted already: closing would reset it
    server.close()
    cut = await app.connections.drain(settings.linger, settings.grace)
    app.pool.close()
    app.log("info" if not cut else "warning", "stopped", cut=cut)
    return 0


def main() -> int:
    try:
        settings = Settings(os.environ)
    except Wrong as wrong:
        print(f"standin: {wrong}", file=sys.stderr)
        return 2
    if settings.exit_at_start < 256:
        print(f"standin: ends with {settings.exit_at_start} as STANDIN_EXIT_AT_START asks", file=sys.stderr)
        return settings.exit_at_start
    return asyncio.run(serve(settings))
