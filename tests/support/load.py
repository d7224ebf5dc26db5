"""An open-loop HTTP load generator, as a library and as a command.

Mechanism: request i is due at start + i / rate, whatever became of those before it, and its latency counts from that
time. Where the server stalls, the requests that pile up meanwhile show the wait that clients would have had; a closed
loop would politely stop asking and report one slow request ("coordinated omission"). How late the generator itself was
with handing over a request is reported as slip: figures with a large slip say more about this machine than about the
server.

A reused connection that ends before anything of an answer came is the ordinary keep-alive race: an idempotent request
is then sent once more on a new connection, as HTTP clients do, and counted under `retries`. Everything else that
yields no complete answer is a failure. Only addresses of this machine are accepted.

    python -m tests.support.load --rate 500 --seconds 10 http://127.0.0.1:8080/v1/jede/echo --token "$TOKEN"
"""

import argparse
import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.support.load_plan import Failure, LoadPlan, LoadResult
from tests.support.load_timer import Alarm
from tests.support.load_wire import Link, Shot

__all__ = ["Failure", "Load", "LoadPlan", "LoadResult", "run_load", "start_load"]

IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
EXCERPT = 300
KEPT_FOR_HOOK = 64 * 1024


class Load:
    """A load that is running."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.result = LoadResult(plan.count, plan.rate)
        self._loop = asyncio.get_running_loop()
        self._messages = plan.messages()
        self._retry = plan.method in IDEMPOTENT
        self._next = 0
        self._outstanding: deque[Shot] = deque()  # in the order of their deadlines
        self._pending = 0
        self._waiting: deque[Shot] = deque()
        self._idle: deque[Link] = deque()
        self._links: set[Link] = set()
        self._places = 0  # connections, open or being opened
        self._opening: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._finished = asyncio.Event()
        self._alarm = Alarm(self._tick)
        self._sweep: asyncio.TimerHandle | None = None
        self._start = 0.0
        self._cpu = 0.0

    async def begin(self) -> None:
        for _ in range(self.plan.warm):
            self._open(None)
        if self._opening:
            await asyncio.wait(self._opening)
        self._cpu = time.process_time()
        self._start = self._loop.time() + 0.001
        self._alarm.at(self._start)
        self._sweep_timeouts()

    async def wait(self) -> LoadResult:
        """Until the whole schedule has been sent and each request is answered, failed or timed out."""
        await self._finished.wait()
        return self.result

    def stop(self) -> None:
        """Nothing more is sent; what is on its way may finish."""
        self._stopped = True
        self._check_finished()

    def close(self) -> None:
        self._finish()
        self._alarm.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._opening:
            task.cancel()
        for link in self._links:
            link.transport.abort()

    # -- the schedule

    def _tick(self) -> None:
        now = self._loop.time()
        rate, count, start = self.plan.rate, self.plan.count, self._start
        while self._next < count and not self._stopped:
            due = start + self._next / rate
            if due > now:
                self._alarm.at(due)
                return
            message = self._messages[self._next % len(self._messages)]
            self._next += 1
            self.result.slips.append(now - due)
            shot = Shot(due, message)
            self._pending += 1
            if self._pending > self.plan.outstanding:
                self._fail(shot, f"not sent: {self.plan.outstanding} requests are outstanding")
            else:
                self._outstanding.append(shot)
                self._hand_over(shot)
            now = self._loop.time()
        self._check_finished()

    def _hand_over(self, shot: Shot) -> None:
        while self._idle:
            link = self._idle.popleft()
            if link.usable():
                self._send(link, shot)
                return
            link.transport.close()
        if self._places < self.plan.connections:
            self._open(shot)
        else:
            self._waiting.append(shot)

    def _send(self, link: Link, shot: Shot) -> None:
        if not shot.sent:
            self.result.sent += 1
        link.send(shot)

    def _sweep_timeouts(self) -> None:
        """All requests have the same limit, so the oldest is always the next to run out."""
        now = self._loop.time()
        while self._outstanding and (
            self._outstanding[0].done or self._outstanding[0].due + self.plan.timeout_s <= now
        ):
            shot = self._outstanding.popleft()
            if shot.done:
                continue
            link = shot.link
            self.result.timeouts += 1
            self._measure(shot, now)
            self._fail(shot, f"no answer within {self.plan.timeout_s:g} s")
            if link is not None:
                link.shot = None
                link.transport.abort()
        self._sweep = self._loop.call_later(min(0.02, self.plan.timeout_s / 4), self._sweep_timeouts)

    def _check_finished(self) -> None:
        if self._stopped:
            while self._waiting:
                shot = self._waiting.popleft()
                if not shot.done and not shot.sent:
                    self._pending -= 1  # not a failure: nobody wanted it any more
                    shot.done = True
                    self.result.not_sent += 1
        if self._pending == 0 and (self._stopped or self._next >= self.plan.count):
            self._finish()

    def _finish(self) -> None:
        if not self._finished.is_set():
            self.result.seconds = max(0.0, self._loop.time() - self._start)
            self.result.cpu_seconds = time.process_time() - self._cpu
            self._finished.set()

    # -- connections

    def _open(self, shot: Shot | None) -> None:
        self._places += 1
        task = self._loop.create_task(self._connect(shot))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, shot: Shot | None) -> None:
        keep = KEPT_FOR_HOOK if self.plan.on_reply is not None else EXCERPT
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                _, link = await self._loop.create_connection(
                    lambda: Link(self, self.plan.method == "HEAD", keep), self.plan.host, self.plan.port
                )
        except OSError as error:  # TimeoutError is one
            self._places -= 1
            if shot is not None:
                self._fail(shot, f"connect: {error.strerror or error or 'no answer'}")
            self._fill_place()
            return
        self.result.connections_opened += 1
        self._links.add(link)
        if shot is not None and not shot.done:
            self._send(link, shot)
        else:
            self._free(link)

    def _free(self, link: Link) -> None:
        while self._waiting:
            shot = self._waiting.popleft()
            if not shot.done:
                self._send(link, shot)
                return
        self._idle.append(link)

    def _fill_place(self) -> None:
        while self._waiting and self._places < self.plan.connections:
            shot = self._waiting.popleft()
            if not shot.done:
                self._open(shot)

    # -- what becomes of a request

    def answered(self, link: Link, shot: Shot, status: int, head: bytes, body: bytes) -> None:
        now = self._loop.time()
        if not shot.done:
            self._measure(shot, now)
            self.result.statuses[status] += 1
            if self.plan.on_reply is not None:
                self.plan.on_reply(shot.due - self._start, status, head, body)
            if self.plan.ok(status):
                self._done(shot)
            else:
                self._fail(shot, f"status {status}", status, body)
        if link.lost:
            self._lost(link)
        elif link.closes:
            link.transport.close()  # connection_lost frees its place
        else:
            self._free(link)

    def broken(self, link: Link, shot: Shot | None, error: str, stale: bool) -> None:
        if shot is not None and not shot.done:
            shot.link = None
            if stale and self._retry and not shot.retried:
                shot.retried = True
                self.result.retries += 1
                self._lost(link, refill=False)
                self._open(shot)  # on a new connection, in the place that has just become free
                return
            self._fail(shot, error)
        if link.lost:
            self._lost(link)

    def _lost(self, link: Link, refill: bool = True) -> None:
        if link in self._links:
            self._links.remove(link)
            self._places -= 1
            if link in self._idle:
                self._idle.remove(link)
            if refill and not self._finished.is_set():
                self._fill_place()

    def _measure(self, shot: Shot, now: float) -> None:
        self.result.latencies.append(now - shot.due)
        self.result.starts.append(shot.due - self._start)

    def _fail(self, shot: Shot, error: str, status: int | None = None, body: bytes = b"") -> None:
        if shot.done:
            return
        result = self.result
        result.failed += 1
        if not shot.sent:
            result.not_sent += 1
        if len(result.failures) < self.plan.max_failures:
            text = body[:EXCERPT].decode("utf-8", "replace")
            result.failures.append(Failure(shot.due - self._start, error, status, text))
        self._done(shot)

    def _done(self, shot: Shot) -> None:
        shot.done = True
        self._pending -= 1
        if self._pending == 0:
            self._check_finished()


@asynccontextmanager
async def start_load(plan: LoadPlan) -> AsyncIterator[Load]:
    """A load that runs while the block does something else; leaving the block early stops it.

    `await load.wait()` inside the block waits for the whole schedule. After the block the result is final.
    """
    load = Load(plan)
    try:
        await load.begin()
        yield load
        load.stop()
        await load.wait()
    finally:
        load.close()


async def run_load(plan: LoadPlan) -> LoadResult:
    """The whole schedule."""
    async with start_load(plan) as load:
        return await load.wait()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.load", description=__doc__.splitlines()[0])
    parser.add_argument(
        "url", nargs="+", help="http://127.0.0.1:PORT/PATH; several must share address and port"
    )
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="in every request"
    )
    parser.add_argument("--token", action="append", default=[], help="a client's token; several take turns")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--body", default="")
    parser.add_argument("--timeout", type=float, default=10, help="seconds")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--outstanding", type=int, default=10_000)
    parser.add_argument("--warm", type=int, default=0, help="connections to open beforehand")
    given = parser.parse_args(arguments)
    urls = [urlsplit(text) for text in given.url]
    if any(url.scheme != "http" or url.netloc != urls[0].netloc or not url.hostname for url in urls):
        parser.error("each address is http://HOST:PORT/PATH with the same host and port")
    common = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in given.header)
    }
    try:
        plan = LoadPlan(
            host=urls[0].hostname or "",
            port=urls[0].port or 80,
            path=[(url.path or "/") + (f"?{url.query}" if url.query else "") for url in urls],
            rate=given.rate,
            seconds=given.seconds,
            headers=[common | {"authorization": f"Bearer {token}"} for token in given.token] or [common],
            method=given.method,
            body=given.body.encode(),
            timeout_s=given.timeout,
            connections=given.connections,
            outstanding=given.outstanding,
            warm=given.warm,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        print(asyncio.run(run_load(plan)))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
