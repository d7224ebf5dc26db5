"""A bus in memory, for tests of what stands above buses. It passes the contract of buses, with the clock of the event
loop; what it keeps outlives the bus, as what a broker keeps outlives a connection (`Kept`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from idi.parts.bus.errors import BadEvent, BusDown, BusFull
from idi.parts.bus.interface import Delivery, Event, GivenUp, Held, Receipt, Shape, Subscription, Topic
from idi.parts.errors import Refused

MOST_PAYLOAD = 4 << 20


@dataclass(slots=True)
class _Place:
    """A subscription's: what it is not done with, by sequence: (when next, how often handed out)."""

    made: Subscription
    open: dict[int, tuple[float, int]] = field(default_factory=dict)
    upto: int = 0


@dataclass(slots=True)
class Kept:
    """What the broker keeps. `down`: it does not answer."""

    topics: dict[str, Topic] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    ids: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    given_up: list[tuple[str, str, int, int]] = field(default_factory=list)
    places: dict[tuple[str, str], _Place] = field(default_factory=dict)
    only: dict[tuple[str, int], str] = field(default_factory=dict)
    """Events that are for one module's subscription alone."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    down: bool = False


class SimulatedBus:
    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    async def __aenter__(self) -> Self:
        self._answers()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _answers(self) -> None:
        if self.kept.down:
            raise BusDown("The simulated broker is down.")

    def _expire(self, topic: str) -> None:
        keep_s = self.kept.topics[topic].keep_s
        self.kept.events[topic] = [e for e in self.kept.events[topic] if e.at > time.time() - keep_s]

    async def shape(self, wanted: Shape) -> list[str]:
        self._answers()
        done = []
        for name, topic in sorted(wanted.topics.items()):
            before = self.kept.topics.get(name)
            for why in await self.refusals(Shape({name: topic})):
                raise Refused(why)
            if before != topic:
                done.append(f"topic {name} {'changed' if before else 'made'}")
            self.kept.topics[name] = topic
            self.kept.events.setdefault(name, [])
        for one in sorted(wanted.subscriptions, key=lambda one: (one.topic, one.module)):
            place = self.kept.places.get((one.topic, one.module))
            if place is None or place.made != one:
                done.append(f"subscription of {one.module} to {one.topic} {'changed' if place else 'made'}")
            if place is None:
                self.kept.places[(one.topic, one.module)] = _Place(one)
            else:
                place.made = one
        return done

    async def refusals(self, wanted: Shape) -> list[str]:
        self._answers()
        found: list[str] = []
        for name, topic in wanted.topics.items():
            before = self.kept.topics.get(name)
            if before is None:
                continue
            if before.durable != topic.durable:
                found.append(f"{name} is kept elsewhere, and what is kept cannot move.")
            oldest = time.time() - topic.keep_s
            old = any(event.at <= oldest for event in self._awaited(name))
            drops = topic.drop_oldest and self._over(topic) and self._awaited(name)
            if old or drops:
                found.append(f"{name} would lose events that are waited for.")
        return found

    def _awaited(self, topic: str) -> list[Event]:
        """What some subscription is not done with."""
        places = [place for (name, _), place in self.kept.places.items() if name == topic]
        return [
            event
            for event in self.kept.events.get(topic, ())
            if any(event.sequence in place.open or event.sequence > place.upto for place in places)
        ]

    async def held(self) -> list[Held]:
        self._answers()
        found: list[Held] = []
        for topic in self.kept.topics:
            self._expire(topic)
            places = [place.made for (name, _), place in self.kept.places.items() if name == topic]
            waiting = {one.module: await self.waiting(one) for one in places}
            found.append(Held(topic, len(self.kept.events[topic]), waiting))
        return found

    async def forget(self, shape: Shape) -> None:
        self._answers()
        for one in shape.subscriptions:
            self.kept.places.pop((one.topic, one.module), None)
        for topic in shape.topics:
            for known in (self.kept.topics, self.kept.events, self.kept.ids):
                known.pop(topic, None)
            for place in [place for place in self.kept.places if place[0] == topic]:
                del self.kept.places[place]

    async def publish_to(
        self, one: Subscription, id: str, headers: Mapping[str, str], payload: bytes
    ) -> Receipt:
        receipt = await self.publish(one.topic, id, headers, payload)
        if not receipt.duplicate:
            self.kept.only[(one.topic, receipt.sequence)] = one.module
        return receipt

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        self._answers()
        if topic not in self.kept.topics:
            raise BusDown(f"There is no topic {topic}.")
        if len(payload) > MOST_PAYLOAD:
            raise BadEvent(f"The event is larger than {MOST_PAYLOAD} bytes.")
        self._expire(topic)
        shape, now = self.kept.topics[topic], time.time()
        known = self.kept.ids.setdefault(topic, {}).get(id)
        if known is not None and now - known[0] < shape.same_s:
            return Receipt(known[1], True)
        while self._over(shape, len(payload) + 100, 1):
            if not shape.drop_oldest or not self.kept.events[topic]:
                raise BusFull(f"{topic} is full.")
            del self.kept.events[topic][0]
        sequence = self.kept.last[topic] = self.kept.last.get(topic, 0) + 1
        self.kept.events[topic].append(Event(topic, sequence, dict(headers), payload, now))
        self.kept.ids[topic][id] = (now, sequence)
        await self.wake()
        return Receipt(sequence)

    async def publish_all(self, topic: str, events: Sequence[tuple[str, Mapping[str, str], bytes]]) -> None:
        for event in events:
            await self.publish(topic, *event)

    def _over(self, topic: Topic, more_bytes: int = 0, more: int = 0) -> bool:
        """Whether it holds more than it may, with so much more in it."""
        events = self.kept.events[topic.name]
        size = sum(len(event.payload) + 100 for event in events) + more_bytes
        return size > topic.most_bytes or 0 < topic.most_events < len(events) + more

    async def wake(self) -> None:
        async with self.kept.changed:
            self.kept.changed.notify_all()

    async def _change(self) -> None:
        """Wait for one, or until time may have made one."""
        try:
            async with asyncio.timeout(0.02), self.kept.changed:
                await self.kept.changed.wait()
        except TimeoutError:
            return

    async def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
        place = self.kept.places[(subscription.topic, subscription.module)]
        while True:
            delivery = None if self.kept.down else self._next(place)
            if delivery is not None:
                yield delivery
                continue
            await self._change()

    def _next(self, place: _Place) -> SimulatedDelivery | None:
        now, topic = time.time(), place.made.topic
        self._expire(topic)
        for event in self.kept.events[topic]:
            if event.sequence > place.upto:
                if not self._is_for(event, place.made.module):
                    continue
                place.open.setdefault(event.sequence, (0.0, 0))
                place.upto = event.sequence
        out = sum(1 for due, attempts in place.open.values() if attempts and due > now)
        held = {event.sequence: event for event in self.kept.events[topic]}
        for sequence, (due, attempts) in sorted(place.open.items()):
            if sequence not in held:
                del place.open[sequence]
            elif due <= now and attempts and place.made.attempts and attempts >= place.made.attempts:
                del place.open[sequence]
                self.kept.given_up.append((topic, place.made.module, sequence, attempts))
            elif due <= now and (attempts or out < place.made.in_flight):
                place.open[sequence] = (now + place.made.answer_s, attempts + 1)
                return SimulatedDelivery(self, place, held[sequence], attempts + 1)
        return None

    async def given_up(self) -> AsyncGenerator[GivenUp]:
        at = 0
        while True:
            known = self.kept.given_up
            if at < len(known):
                one = known[at]
                yield GivenUp(*one, _Noted(self, one))
                at = at + 1 if at < len(known) and known[at] == one else at
                continue
            await asyncio.sleep(0.02)

    async def waiting(self, subscription: Subscription) -> int:
        self._answers()
        place = self.kept.places[(subscription.topic, subscription.module)]
        new = sum(
            event.sequence > place.upto and self._is_for(event, subscription.module)
            for event in self.kept.events[subscription.topic]
        )
        return len(place.open) + new

    def _is_for(self, event: Event, module: str) -> bool:
        return self.kept.only.get((event.topic, event.sequence), module) == module

    async def event(self, topic: str, sequence: int) -> Event | None:
        self._answers()
        return next((one for one in self.kept.events[topic] if one.sequence == sequence), None)

    async def drop(self, topic: str, sequence: int) -> None:
        self._answers()
        self.kept.events[topic] = [one for one in self.kept.events[topic] if one.sequence != sequence]

    async def last(self, topic: str) -> int:
        self._answers()
        return self.kept.last.get(topic, 0)

    async def read(self, topic: str, since: int = 0, *, follow: bool = True) -> AsyncGenerator[Event]:
        while True:
            for event in list(self.kept.events[topic]):
                if event.sequence >= since:
                    since = event.sequence + 1
                    if self._is_for(event, ""):
                        yield event
            if not follow:
                return
            await self._change()


@dataclass(slots=True)
class SimulatedDelivery:
    bus: SimulatedBus
    place: _Place
    event: Event
    attempt: int

    async def done(self) -> None:
        self.bus._answers()
        self.place.open.pop(self.event.sequence, None)
        await self.bus.wake()

    async def again(self, after_s: float) -> None:
        self.bus._answers()
        if self.event.sequence in self.place.open:
            self.place.open[self.event.sequence] = (time.time() + after_s, self.attempt)
            await self.bus.wake()

    async def working(self) -> None:
        self.bus._answers()
        if self.event.sequence in self.place.open:
            self.place.open[self.event.sequence] = (time.time() + self.place.made.answer_s, self.attempt)


@dataclass(slots=True)
class _Noted:
    """The message that an event was given up."""

    bus: SimulatedBus
    one: tuple[str, str, int, int]
    attempt: int = 1

    @property
    def event(self) -> Event:
        return Event(self.one[0], self.one[2], {}, b"", 0.0)

    async def done(self) -> None:
        self.bus._answers()
        self.bus.kept.given_up.remove(self.one)

    async def again(self, after_s: float) -> None:
        del after_s  # it comes again in any case
        self.bus._answers()

    async def working(self) -> None:
        self.bus._answers()
