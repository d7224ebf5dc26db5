"""The connection that events are published by, against a broker of a few lines that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from idi.parts.bus.nats import publisher as publisher_module
from idi.parts.bus.nats.publisher import Publisher, TooLarge, Unanswered, head_of

pytestmark = pytest.mark.requirement("B1")


@dataclass
class Broker:
    """`got`: subject, reply subject and what followed, of each event. `answer` makes bytes of one."""

    answer: Callable[[str], bytes] | None = None
    welcome: bytes = b"PONG\r\n"
    got: list[tuple[str, str, bytes]] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"INFO " + json.dumps({"max_payload": 1000}).encode() + b"\r\n")
        try:
            while line := await reader.readline():
                words = line.split()
                if words[0] == b"PING":
                    writer.write(self.welcome)
                if words[0] not in (b"PUB", b"HPUB"):
                    continue
                rest = await reader.readexactly(int(words[-1]) + 2)
                reply = words[2].decode()
                self.got.append((words[1].decode(), reply, rest[:-2]))
                if self.answer is not None:
                    writer.write(self.answer(reply))
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


def said(reply: str, text: bytes = b"ok") -> bytes:
    return b"MSG %s 1 %d\r\n%s\r\n" % (reply.encode(), len(text), text)


@asynccontextmanager
async def talking(broker: Broker) -> AsyncIterator[Publisher]:
    async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        publisher = Publisher(f"nats://127.0.0.1:{port}", "idi", "secret")
        try:
            yield publisher
        finally:
            publisher.close()


async def test_answers_find_their_event_in_whatever_order_and_pieces_they_come() -> None:
    replies: list[str] = []

    def answer(reply: str) -> bytes:
        replies.append(reply)
        if len(replies) < 3:
            return b""
        late = b"".join(said(one, one.rpartition(".")[2].encode()) for one in reversed(replies))
        return b"PING\r\n" + late

    broker = Broker(answer)
    async with talking(broker) as publisher, asyncio.timeout(5):
        assert await publisher.publish_all("a.b", [({}, b"x")] * 3) == [b"1", b"2", b"3"]
    assert broker.connections == 1


async def test_many_who_come_first_share_a_connection() -> None:
    broker = Broker(said)
    async with talking(broker) as publisher, asyncio.timeout(5):
        assert await asyncio.gather(*(publisher.publish("a", {}, b"x") for _ in range(20))) == [b"ok"] * 20
    assert broker.connections == 1


async def test_without_an_answer_the_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "ANSWER_S", 0.2)
    broker = Broker()
    async with talking(broker) as publisher, asyncio.timeout(5):
        with pytest.raises(Unanswered):
            await publisher.publish("a", {}, b"x")
        broker.answer = said
        assert await publisher.publish("a", {}, b"x") == b"ok"
    assert broker.connections == 2


async def test_one_that_is_not_answered_takes_no_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "ANSWER_S", 0.3)
    broker = Broker(lambda reply: b"" if reply.endswith(".1") else said(reply))
    async with talking(broker) as publisher, asyncio.timeout(5):
        first, *others = await publisher.publish_all("a", [({}, b"x")] * 5)
        assert isinstance(first, Unanswered)
        assert others == [b"ok"] * 4
        assert await publisher.publish("a", {}, b"x") == b"ok"
    assert broker.connections == 1


@pytest.mark.parametrize("welcome", [b"-ERR 'Authorization Violation'\r\n", b""])
async def test_a_broker_that_does_not_let_one_in(welcome: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "CONNECT_S", 0.2)
    broker = Broker(said, welcome)
    async with talking(broker) as publisher, asyncio.timeout(5):
        each = [publisher.publish("a", {}, b"x") for _ in range(10)]
        found = await asyncio.gather(*each, return_exceptions=True)
        assert all(isinstance(one, Unanswered) for one in found)
        assert broker.connections == 1
        broker.welcome = b"PONG\r\n"
        assert await publisher.publish("a", {}, b"x") == b"ok"


async def test_where_nobody_is() -> None:
    broker = Broker(lambda reply: f"HMSG {reply} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n".encode())
    async with talking(broker) as publisher, asyncio.timeout(5):
        with pytest.raises(Unanswered, match="nobody"):
            await publisher.publish("a", {}, b"x")


async def test_what_is_too_large_is_not_sent_nor_what_is_behind_it() -> None:
    broker = Broker(said)
    async with talking(broker) as publisher, asyncio.timeout(5):
        with pytest.raises(TooLarge, match="1000"):
            await publisher.publish("a", {}, b"x" * 1001)
        first, second = await publisher.publish_all("a", [({}, b"x"), ({}, b"x" * 1001), ({}, b"x")])
        assert first == b"ok"
        assert isinstance(second, TooLarge)
    assert len(broker.got) == 1


async def test_a_publisher_that_goes_away_leaves_nothing_behind() -> None:
    broker = Broker()
    async with talking(broker) as publisher:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(publisher.publish("a", {}, b"x"))
            while not broker.got:  # noqa: ASYNC110 - it is of another task
                await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.sleep(0)
        assert publisher._link is not None
        assert not publisher._link._waiting


def test_no_header_breaks_out_of_its_line() -> None:
    assert head_of({"a": "1\r\nNats-Rollup: all", "b": "2"}) == (
        b"NATS/1.0\r\na: 1  Nats-Rollup: all\r\nb: 2\r\n\r\n"
    )
    assert head_of({"a": "\n1"}).count(b"\n") == 3
