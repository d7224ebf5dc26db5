"""The load generator counts honestly: stalls show, failures count, an ordinary keep-alive race does not."""

import asyncio
import json
import math
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.load import LoadPlan, main, run_load, start_load
from tests.support.load_plan import is_this_machine, nearest_rank
from tests.support.load_wire import Link, Shot

Answer = Callable[["Server", int, bytes], Awaitable[bytes | None]]


def reply(body: bytes = b"ok", status: int = 200, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Any\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), more, body)


class Server:
    """Answers each request as a function says; None closes the connection without a word."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.most = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        nth = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    await reader.readexactly(
                        int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    )
                self.heads.append(head)
                nth += 1
                answer = await self.answer(self, nth, head)
                if answer is None:
                    return
                writer.write(answer)
                if b"connection: close" in answer or b"content-length" not in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


async def always_ok(server: Server, nth: int, head: bytes) -> bytes:
    return reply()


# -- no coordinated omission


@pytest.mark.requirement("T2")
@pytest.mark.parametrize("connections", [1, 64])
async def test_a_stall_shows_in_the_percentiles(connections: int) -> None:
    """One second of silence: a closed loop would report a single slow request of hundreds."""
    began = time.monotonic()

    async def stalls(server: Server, nth: int, head: bytes) -> bytes:
        since = time.monotonic() - began
        if 0.2 < since < 1.2:
            await asyncio.sleep(1.2 - since)
        return reply()

    async with serving(stalls) as server:
        result = await run_load(
            LoadPlan("127.0.0.1", server.port, rate=200, seconds=1.5, connections=connections)
        )
    assert result.statuses == {200: 300}
    assert result.failed == 0
    assert 0.9 < result.p99 < 3
    assert result.p95 > 0.7
    assert sum(latency > 0.3 for latency in result.latencies) > 100
    assert nearest_rank(result.between(0, 0.1), 0.5) < 0.2


async def test_the_generators_own_delay_is_reported_as_slip() -> None:
    async with serving(always_ok) as server:
        async with start_load(LoadPlan("127.0.0.1", server.port, rate=100, seconds=1)) as load:
            await asyncio.sleep(0.2)
            time.sleep(0.3)  # noqa: ASYNC251 - the point of the test
            result = await load.wait()
    assert result.sent == 100
    assert 0.2 < result.slip_max < 3
    assert result.max >= result.slip_max


async def test_the_rate_is_kept() -> None:
    async with serving(always_ok) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=500, seconds=1))
    assert result.sent == result.planned == 500
    assert 0.9 < result.seconds < 5


# -- failures


async def test_failures_are_counted_and_described() -> None:
    count = 0

    async def every_fifth(server: Server, nth: int, head: bytes) -> bytes:
        nonlocal count
        count += 1
        return reply(b"broken " * 100, 503) if count % 5 == 0 else reply()

    async with serving(every_fifth) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=500, seconds=0.2, max_failures=7))
    assert result.statuses == {200: 80, 503: 20}
    assert result.failed == 20
    assert len(result.failures) == 7
    assert result.failures[0].status == 503
    assert result.failures[0].error == "status 503"
    assert result.failures[0].body.startswith("broken ")
    assert len(result.failures[0].body) <= 300
    assert 0 <= result.failures[0].at < 0.2
    assert len(result.latencies) == 100


async def test_a_status_can_be_declared_good() -> None:
    async def limited(server: Server, nth: int, head: bytes) -> bytes:
        return reply(b"slow down", 429)

    async with serving(limited) as server:
        plan = LoadPlan("127.0.0.1", server.port, rate=100, seconds=0.1, ok=lambda status: status == 429)
        result = await run_load(plan)
    assert (result.failed, result.statuses) == (0, {429: 10})


async def test_nobody_listening_is_a_failure_of_each_request() -> None:
    async with serving(always_ok) as server:
        port = server.port
    result = await run_load(LoadPlan("127.0.0.1", port, rate=100, seconds=0.1, connections=2))
    assert (result.failed, result.sent, result.not_sent) == (10, 0, 10)
    assert result.failures[0].error.startswith("connect: ")
    assert math.isnan(result.p99)


async def test_a_timeout_is_a_failure_and_its_wait_is_a_latency() -> None:
    async def silent(server: Server, nth: int, head: bytes) -> bytes:
        await asyncio.sleep(30)
        return reply()

    async with serving(silent) as server:
        result = await run_load(
            LoadPlan("127.0.0.1", server.port, rate=50, seconds=0.1, timeout_s=0.3, connections=2)
        )
    assert (result.failed, result.timeouts, result.answered) == (5, 5, 0)
    assert result.failures[0].error == "no answer within 0.3 s"
    assert all(latency >= 0.3 for latency in result.latencies)
    assert len(result.latencies) == 5
    assert result.seconds < 8


async def test_more_outstanding_than_allowed_is_a_failure_not_a_pause() -> None:
    async def slow(server: Server, nth: int, head: bytes) -> bytes:
        await asyncio.sleep(0.5)
        return reply()

    async with serving(slow) as server:
        result = await run_load(
            LoadPlan("127.0.0.1", server.port, rate=100, seconds=0.2, outstanding=5, connections=5)
        )
    assert (result.sent, result.failed, result.not_sent) == (5, 15, 15)
    assert "5 requests are outstanding" in result.failures[0].error


# -- connections


async def test_the_keep_alive_race_is_retried_and_counted_apart() -> None:
    """The server closes a connection just as a further request arrives on it."""

    async def closes_on_third(server: Server, nth: int, head: bytes) -> bytes | None:
        return None if nth == 3 else reply()

    async with serving(closes_on_third) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=200, seconds=0.2, connections=1))
    assert (result.failed, result.statuses) == (0, {200: 40})
    assert result.retries == 19  # two answers on each connection, but for the last one
    assert result.connections_opened == 20


async def test_a_retry_takes_no_more_connections_than_allowed() -> None:
    async def closes_on_third(server: Server, nth: int, head: bytes) -> bytes | None:
        await asyncio.sleep(0.005)
        return None if nth == 3 else reply()

    async with serving(closes_on_third) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=1000, seconds=0.1, connections=2))
    assert (result.failed, result.statuses) == (0, {200: 100})
    assert result.retries > 40
    assert server.most == 2


async def test_what_is_not_idempotent_is_not_sent_twice() -> None:
    async def closes_on_second(server: Server, nth: int, head: bytes) -> bytes | None:
        return None if nth == 2 else reply()

    async with serving(closes_on_second) as server:
        result = await run_load(
            LoadPlan("127.0.0.1", server.port, rate=100, seconds=0.1, connections=1, method="POST", body=b"x")
        )
    assert (result.failed, result.retries, result.statuses) == (5, 0, {200: 5})
    assert "closed before" in result.failures[0].error


async def test_a_new_connection_that_is_closed_is_a_failure() -> None:
    async def never(server: Server, nth: int, head: bytes) -> bytes | None:
        return None

    async with serving(never) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=100, seconds=0.1))
    assert (result.failed, result.retries, result.answered) == (10, 0, 0)


async def test_half_an_answer_is_a_failure_even_on_a_reused_connection() -> None:
    async def half(server: Server, nth: int, head: bytes) -> bytes:
        return (
            reply() if nth == 1 else b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nabc"
        )

    async with serving(half) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=50, seconds=0.2, connections=1))
    assert (result.failed, result.retries, result.statuses) == (5, 0, {200: 5})


async def test_connection_close_is_honoured() -> None:
    async def closing(server: Server, nth: int, head: bytes) -> bytes:
        return reply(more=b"connection: close\r\n")

    async with serving(closing) as server:
        result = await run_load(LoadPlan("127.0.0.1", server.port, rate=200, seconds=0.2, connections=2))
    assert (result.failed, result.retries) == (0, 0)
    assert result.connections_opened == server.connections == 40


async def test_connections_are_kept_bounded_and_warm() -> None:
    async def slowish(server: Server, nth: int, head: bytes) -> bytes:
        await asyncio.sleep(0.02)
        return reply()

    async with serving(slowish) as server:
        plan = LoadPlan("127.0.0.1", server.port, rate=400, seconds=0.3, connections=3, warm=3)
        result = await run_load(plan)
    assert server.connections == result.connections_opened == 3
    assert (result.failed, result.sent) == (0, 120)
    assert result.max > 0.3  # 120 requests at 150 a second: their wait for a connection counts


# -- what is sent


async def test_clients_take_turns() -> None:
    async with serving(always_ok) as server:
        clients = [{"authorization": f"Bearer {name}"} for name in ("a", "b", "c")]
        plan = LoadPlan("127.0.0.1", server.port, ["/x", "/y"], rate=300, seconds=0.2, headers=clients)
        await run_load(plan)
    seen = Counter(tuple(head.decode().split("\r\n")[i] for i in (0, 2)) for head in server.heads)
    assert len(seen) == 6
    assert set(seen.values()) == {10}
    assert f"host: 127.0.0.1:{server.port}".encode() in server.heads[0]


async def test_a_test_can_act_while_the_load_runs_and_stop_it() -> None:
    async with serving(always_ok) as server:
        async with start_load(LoadPlan("127.0.0.1", server.port, rate=100, seconds=600)) as load:
            await asyncio.sleep(0.3)
            assert load.result.answered > 5
    assert 5 < load.result.sent < 200
    assert (load.result.failed, load.result.answered) == (0, load.result.sent)


async def test_a_hook_sees_each_answer() -> None:
    seen: list[tuple[int, bytes]] = []
    async with serving(always_ok) as server:
        plan = LoadPlan(
            "127.0.0.1",
            server.port,
            rate=100,
            seconds=0.1,
            on_reply=lambda at, status, head, body: seen.append((status, body)),
        )
        await run_load(plan)
    assert seen == [(200, b"ok")] * 10


# -- bounds


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "example.org", "localhost", "0.0.0.0", "::", "128.0.0.1", "::2", ""]
)
def test_no_other_machine_is_loaded(host: str) -> None:
    assert not is_this_machine(host)
    with pytest.raises(ValueError, match="127"):
        LoadPlan(host, 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1"])
def test_this_machine_is(host: str) -> None:
    assert LoadPlan(host, 80).host == host


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"rate": 1e6},
        {"seconds": 4000},
        {"rate": 50_000, "seconds": 3600},
        {"timeout_s": 0},
        {"connections": 0},
        {"connections": 5000},
        {"outstanding": 0},
        {"warm": 65},
        {"headers": []},
        {"headers": [{"a": "b\r\nc: d"}]},
        {"path": "/x HTTP/1.1\r\nhost: y"},
    ],
)
def test_plans_are_bounded(wrong: dict) -> None:
    with pytest.raises(ValueError):
        LoadPlan("127.0.0.1", 80, **wrong)


def test_percentiles_are_by_nearest_rank() -> None:
    ordered = array("d", range(1, 101))
    assert [nearest_rank(ordered, share) for share in (0.5, 0.95, 0.99, 1.0, 0.0)] == [50, 95, 99, 100, 1]
    assert nearest_rank(array("d", [7]), 0.99) == 7
    assert math.isnan(nearest_rank(array("d"), 0.5))


# -- answers in every shape, in pieces of every size


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.aborted = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Hears:
    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.errors: list[tuple[str, bool]] = []

    def answered(self, link: Link, shot: Shot, status: int, head: bytes, body: bytes) -> None:
        self.answers.append((status, body))

    def broken(self, link: Link, shot: Shot | None, error: str, stale: bool) -> None:
        self.errors.append((error, stale))


def fed(data: bytes, size: int, end: bool = False, head_only: bool = False, keep: int = 1000) -> Hears:
    hears = Hears()
    link = Link(hears, head_only, keep)
    link.connection_made(Transport())
    link.send(Shot(0, b""))
    for at in range(0, len(data), size):
        link.data_received(data[at : at + size])
    if end:
        link.connection_lost(None)
    return hears


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n1\r\n\r\r\n0\r\nx-trailer: 1\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_answers_are_read_in_any_pieces(size: int) -> None:
    assert fed(reply(b"hello", 404), size).answers == [(404, b"hello")]
    assert fed(reply(b""), size).answers == [(200, b"")]
    assert fed(CHUNKED, size).answers == [(200, b"abc0123456789\r")]
    assert fed(CHUNKED, size, keep=5).answers == [(200, b"abc01")]
    assert fed(b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" + reply(), size).answers == [(200, b"ok")]
    assert fed(b"HTTP/1.1 204 No Content\r\n\r\n", size).answers == [(204, b"")]
    assert fed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", size, head_only=True).answers == [(200, b"")]
    until_end = b"HTTP/1.0 200 OK\r\n\r\nall of it"
    assert fed(until_end, size).answers == []
    assert fed(until_end, size, end=True).answers == [(200, b"all of it")]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", CHUNKED.replace(b"A;x=y", b"zz"), b"x" * 70_000],
)
def test_what_is_not_http_is_a_failure(data: bytes, size: int) -> None:
    hears = fed(data, size if len(data) < 1000 else 1000)
    assert hears.answers == []
    assert hears.errors[0][0].startswith("not HTTP")


def test_more_than_the_answer_is_a_failure() -> None:
    assert fed(reply() + b"more", 1000).errors == [
        ("not HTTP: more bytes than its content-length says", False)
    ]


def test_an_answer_cut_short_is_a_failure() -> None:
    assert fed(reply()[:-1], 1000, end=True).errors == [("closed before the answer was complete", False)]
    assert fed(CHUNKED[:-1], 1000, end=True).errors == [("closed before the answer was complete", False)]


# -- the command


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_command())
    value = json.loads(capsys.readouterr().out)
    assert value["statuses"] == {"200": 20}
    assert value["failed"] == 0
    assert 0 < value["latency_ms"]["p50"] <= value["latency_ms"]["max"]


async def _command() -> None:
    async with serving(always_ok) as server:
        url = f"http://127.0.0.1:{server.port}/v1/jede/echo?a=b"
        status = await asyncio.to_thread(
            main, [url, "--rate", "100", "--seconds", "0.2", "--token", "t", "--header", "x: y"]
        )
    assert status == 0
    assert server.heads[0].startswith(b"GET /v1/jede/echo?a=b HTTP/1.1\r\n")
    assert b"\r\nx: y\r\nauthorization: Bearer t\r\n" in server.heads[0]


@pytest.mark.parametrize(
    "arguments",
    [["https://127.0.0.1/"], ["http://10.0.0.1/"], ["http://127.0.0.1:1/", "http://127.0.0.1:2/"], []],
)
def test_the_command_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
