"""The bus on NATS JetStream, by nats-py; what is published goes by a connection of its own (`publisher`).

A topic is a stream of its own with `discard: new`: one that is full refuses further events instead of dropping old
ones. A subscription is a durable pull consumer with explicit acknowledgement and no end of redeliveries: who hands the
events out decides when one is dead. The message id is the event's, so a publisher that did not hear its acknowledgement
may publish again.

Every call is bounded in time. The client reconnects by itself for as long as it lives; meanwhile calls fail with
`BusDown`, and nothing is buffered for later, for a publisher would take that as kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
)
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from idi.parts.bus.errors import BusDown, BusFull
from idi.parts.bus.interface import Delivery, Event, GivenUp, Held, Receipt, Shape, Subscription, Topic
from idi.parts.bus.nats.client import Reader
from idi.parts.bus.nats.events import event_of, headers_of
from idi.parts.bus.nats.held import held, refusal
from idi.parts.bus.nats.names import GIVEN_UP, GIVEN_UP_SUBJECT, only_subject, stream_of, topic_of
from idi.parts.bus.nats.publisher import Publisher, TooLarge, Unanswered
from idi.parts.bus.nats.pulling import Pulling, quietly
from idi.parts.bus.nats.receipts import OTHER_LAST, failed, own_headers, receipt, refused, words_of
from idi.parts.bus.nats.shapes import NO_END, consumer_config, place_of, shape_of, stream_config
from idi.parts.errors import Refused

log = logging.getLogger(__name__)

ANSWER_S = 5.0
BATCH = 64
AGAIN_S = 0.25
QUIET_S = 2.0
"""Of what is kept already nothing comes for so long: there is no more."""

WINDOW = 32
"""Of a batch so many are on their way at once."""


TAKES_GIVEN_UP = Subscription(GIVEN_UP, "relay")

_T = TypeVar("_T")


class NatsBus:
    """Async context manager: inside it there is a connection, or one is being made. `tls`: by TLS from the first byte,
    as a sidecar before the broker takes it."""

    def __init__(self, url: str, user: str, password: str, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._user, self._password, self._tls = url, user, password, tls
        self._client = Reader()
        self._publisher = Publisher(url, user, password, tls)
        self._pulling = Pulling()

    async def __aenter__(self) -> Self:
        self._client = Reader()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._client.connect(
                    self._url,
                    user=self._user,
                    password=self._password,
                    name=self._user,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=AGAIN_S,  # type: ignore[arg-type]
                    connect_timeout=2,
                    pending_size=-1,
                    tls=self._tls,
                    tls_handshake_first=self._tls is not None,
                    error_cb=_noted,
                    reconnected_cb=self._connected_anew,
                )
        except (Error, OSError, TimeoutError) as error:
            raise BusDown(f"NATS does not answer at {self._url}: {words_of(error)}.") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.close()
        await self._client.close()

    async def _connected_anew(self) -> None:
        self._pulling.anew()

    @property
    def _stream(self) -> JetStreamContext:
        return self._client.jetstream(timeout=ANSWER_S)

    async def shape(self, wanted: Shape) -> list[str]:
        done: list[str] = []
        for topic in sorted(wanted.topics.values(), key=lambda topic: topic.name):
            done += await self._topic(topic)
        for subscription in sorted(wanted.subscriptions, key=lambda one: (one.topic, one.module)):
            done += await self._subscription(subscription)
        return done

    async def _topic(self, topic: Topic, *subjects: str) -> list[str]:
        config = stream_config(topic, *subjects)
        try:
            info = await self._asked(self._stream.stream_info(stream_of(topic.name)))
        except NotFoundError:
            await self._room(topic, self._stream.add_stream(config))
            return [f"topic {topic.name} made"]
        if why := await self._asked(refusal(self._stream, info, topic)):
            raise Refused(why)
        if shape_of(info.config) == shape_of(config):
            return []
        await self._room(topic, self._stream.update_stream(config))
        return [f"topic {topic.name} changed"]

    async def _room(self, topic: Topic, call: Awaitable[object]) -> None:
        """NATS takes what a topic may come to off what it has at its first event."""
        try:
            await self._asked(call)
        except BusFull as error:
            raise Refused(
                f"{topic.name} may come to {topic.most_bytes} bytes, which is more than the broker has left: "
                f"{error.message}",
                "Give it, or others, a smaller limit.",
            ) from error

    async def _subscription(self, one: Subscription) -> list[str]:
        if one.attempts:
            await self._topic(Topic(GIVEN_UP), GIVEN_UP_SUBJECT)
            await self._subscription(TAKES_GIVEN_UP)
        config = consumer_config(one)
        try:
            info = await self._asked(self._stream.consumer_info(stream_of(one.topic), one.module))
        except NotFoundError:
            await self._asked(self._stream.add_consumer(stream_of(one.topic), config))
            return [f"subscription of {one.module} to {one.topic} made"]
        now = info.config
        if place_of(now) == place_of(config):
            return []
        fewer = 0 < one.attempts < (now.max_deliver or 0) or (one.attempts and now.max_deliver == NO_END)
        if fewer and info.num_ack_pending:
            # NATS would let go of one that has had more attempts already, and tell nobody.
            raise Refused(
                f"{one.module} has {info.num_ack_pending} events of {one.topic} in hand, so its attempts become fewer "
                "when it is done with them."
            )
        # What a consumer was made with and cannot change (where it began) is taken from what it is.
        changed = replace(
            now,
            ack_wait=config.ack_wait,
            max_ack_pending=config.max_ack_pending,
            max_deliver=config.max_deliver,
            filter_subjects=config.filter_subjects,
        )
        await self._asked(self._stream.add_consumer(stream_of(one.topic), changed))
        return [f"subscription of {one.module} to {one.topic} changed"]

    async def refusals(self, wanted: Shape) -> list[str]:
        found: list[str] = []
        for name, topic in sorted(wanted.topics.items()):
            try:
                info = await self._asked(self._stream.stream_info(stream_of(name)))
            except NotFoundError:
                continue
            found.append(await self._asked(refusal(self._stream, info, topic)))
        return [why for why in found if why]

    async def held(self) -> list[Held]:
        return await self._asked(held(self._stream))

    async def forget(self, shape: Shape) -> None:
        for one in shape.subscriptions:
            try:
                await self._asked(self._stream.delete_consumer(stream_of(one.topic), one.module))
            except NotFoundError:
                continue
        for topic in shape.topics:
            try:
                await self._asked(self._stream.delete_stream(stream_of(topic)))
            except NotFoundError:
                continue

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        return await self._publish(topic, topic, id, headers, payload)

    async def publish_to(
        self, one: Subscription, id: str, headers: Mapping[str, str], payload: bytes
    ) -> Receipt:
        return await self._publish(one.topic, only_subject(one.topic, one.module), id, headers, payload)

    async def _publish(
        self, topic: str, subject: str, id: str, headers: Mapping[str, str], payload: bytes
    ) -> Receipt:
        try:
            return receipt(
                await self._publisher.publish(subject, {**headers, **own_headers(topic, id)}, payload)
            )
        except (TooLarge, Unanswered, TimeoutError) as error:
            raise failed(error) from error

    async def _done(self, subject: str) -> None:
        try:
            await self._publisher.publish(subject, {}, Msg.Ack.Ack)
        except (Unanswered, TimeoutError) as error:
            raise failed(error) from error

    async def publish_all(self, topic: str, events: Sequence[tuple[str, Mapping[str, str], bytes]]) -> None:
        """So many on their way at once, each one saying which has to be the topic's last before it: where one is
        refused, or somebody else's comes in between, those after it are refused too, and go on their way again."""
        at, window = 0, WINDOW
        while at < len(events):
            each = [
                ({**headers, **own_headers(topic, id, events[n - 1][0] if n > at else "")}, payload)
                for n, (id, headers, payload) in enumerate(events[at : at + window], at)
            ]
            try:
                answers = await self._publisher.publish_all(topic, each)
            except (Unanswered, TimeoutError) as error:
                raise failed(error) from error
            for kept, said in enumerate(answers):
                if isinstance(said, BaseException):
                    raise failed(said) from said
                if kept and OTHER_LAST in said:
                    window = kept
                    break
                receipt(said)
                at += 1
            else:
                window = min(WINDOW, 2 * window)

    async def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
        told, most = "", min(BATCH, subscription.in_flight)
        while True:
            try:
                found = self._pulling.messages(
                    self._client, stream_of(subscription.topic), subscription.module, most
                )
                async with aclosing(found):
                    async for message in found:
                        yield NatsDelivery(message, self)
            except (Error, OSError) as error:
                if (words := words_of(error)) != told:
                    log.info("events of %s for %s: %s", subscription.topic, subscription.module, words)
                    told = words
                await asyncio.sleep(AGAIN_S)

    async def given_up(self) -> AsyncGenerator[GivenUp]:
        async with aclosing(self.take(TAKES_GIVEN_UP)) as found:
            async for delivery in found:
                told = json.loads(delivery.event.payload)
                yield GivenUp(
                    topic_of(told["stream"]),
                    told["consumer"],
                    told["stream_seq"],
                    told["deliveries"],
                    delivery,
                )

    async def waiting(self, subscription: Subscription) -> int:
        info = await self._asked(
            self._stream.consumer_info(stream_of(subscription.topic), subscription.module)
        )
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def event(self, topic: str, sequence: int) -> Event | None:
        try:
            found = await self._asked(self._stream.get_msg(stream_of(topic), sequence))
        except NotFoundError:
            return None
        assert found.time is not None
        return Event(topic, sequence, headers_of(found.hdrs), found.data or b"", found.time.timestamp())

    async def drop(self, topic: str, sequence: int) -> None:
        try:
            await self._asked(self._stream.delete_msg(stream_of(topic), sequence))
        except NotFoundError:
            return

    async def last(self, topic: str) -> int:
        info = await self._asked(self._stream.stream_info(stream_of(topic)))
        return info.state.last_seq

    async def read(self, topic: str, since: int = 0, *, follow: bool = True) -> AsyncGenerator[Event]:
        upto = 0
        if not follow:
            state = (await self._asked(self._stream.stream_info(stream_of(topic)))).state
            if not state.messages or state.last_seq < since:
                return
            upto = state.last_seq
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if since else DeliverPolicy.ALL,
            opt_start_seq=since or None,
            ack_policy=AckPolicy.NONE,
        )
        handle = await self._asked(
            self._stream.subscribe(topic, stream=stream_of(topic), ordered_consumer=True, config=config)
        )
        try:
            while True:
                try:
                    message = await handle.next_msg(None if follow else QUIET_S)
                except TimeoutError:
                    return  # what was last when this began is deleted by now
                except (Error, OSError) as error:
                    raise BusDown(f"NATS does not answer: {words_of(error)}.") from error
                event = event_of(message)
                yield event
                if upto and (event.sequence >= upto or not message.metadata.num_pending):
                    return
        finally:
            await quietly(handle.unsubscribe())

    async def _asked(self, call: Awaitable[_T]) -> _T:
        """One question to the broker, its errors in our words."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await call
        except NotFoundError:
            raise
        except APIError as error:
            raise refused(error.err_code, error.description) from error
        except (Error, OSError, TimeoutError) as error:
            raise BusDown(f"NATS does not answer: {words_of(error)}.") from error


@dataclass(slots=True)
class NatsDelivery:
    message: Msg
    bus: NatsBus

    @property
    def event(self) -> Event:
        return event_of(self.message)

    @property
    def attempt(self) -> int:
        return self.message.metadata.num_delivered or 1

    async def done(self) -> None:
        await self.bus._done(self.message.reply)

    async def again(self, after_s: float) -> None:
        await self.bus._asked(self.message.nak(delay=max(after_s, 0.001)))

    async def working(self) -> None:
        await self.bus._asked(self.message.in_progress())


async def _noted(error: Exception) -> None:
    log.debug("nats: %s", words_of(error))
