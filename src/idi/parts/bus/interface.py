"""What IDI asks of a broker, in no broker's words.

A *topic* holds the events of one type, for as long as they are kept. A *subscription* is one module's lasting place in
a topic: every event of the topic is handed to it until it says that it is done with it, so at least once. Which module
may do what is the broker's to enforce: a module that speaks to it directly has a login of its own and reaches the
topics that it publishes and the subscriptions that it has, and nothing else.

An event is a CloudEvent in binary form: its attributes are headers (`ce-id`, `ce-type` ...), its data the payload.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Topic:
    """`durable`: acknowledged means on disk; else a crash of the broker may lose what is in memory. A topic that holds
    `most_bytes`, or `most_events` (0: any number), refuses further events (`BusFull`) and loses none, or, with
    `drop_oldest`, loses the oldest. `same_s`: an event whose id was seen within so many seconds is taken once only."""

    name: str
    keep_s: float = 7 * 86400.0
    durable: bool = True
    most_bytes: int = 1 << 30
    most_events: int = 0
    drop_oldest: bool = False
    same_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """`answer_s`: an event that was handed out and not answered for so long is handed out again. `in_flight`: so many
    may be out at once. `attempts`: so often at most, then it is `given_up`; 0 for without end, where whoever takes
    them decides."""

    topic: str
    module: str
    answer_s: float = 30.0
    in_flight: int = 64
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that is declared."""

    topics: Mapping[str, Topic] = field(default_factory=dict)
    subscriptions: Collection[Subscription] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A topic that there is: how many events are kept, and by module how many its subscription is not done with."""

    topic: str
    events: int
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as the broker keeps it. `sequence` orders those of a topic."""

    topic: str
    sequence: int
    headers: Mapping[str, str]
    payload: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """An event is kept. `duplicate`: one of the same id was already, this one was not added."""

    sequence: int
    duplicate: bool = False


class Delivery(Protocol):
    """One event in the hands of a subscription. Whatever happens to its holder, it is handed out again unless it was
    said to be done with."""

    @property
    def event(self) -> Event: ...

    @property
    def attempt(self) -> int:
        """How often it has been handed out, this time included."""

    async def done(self) -> None:
        """Not again, unless the broker crashes before it has that on disk. Returns when it has taken it."""

    async def again(self, after_s: float) -> None:
        """Once more, not before `after_s` seconds from now."""

    async def working(self) -> None:
        """It takes longer: another `answer_s` from now."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An event that a subscription was handed `attempts` times and was never done with. `delivery` is of this message:
    it comes again until that is done."""

    topic: str
    module: str
    sequence: int
    attempts: int
    delivery: Delivery


class Bus(Protocol):
    """Raises `BusDown` (retryable) while the broker cannot be reached, `BusFull` where a topic is."""

    async def shape(self, wanted: Shape) -> list[str]:
        """Make topics and subscriptions as they are wanted; what was done, in words. Idempotent. Nothing that is
        kept gets lost: a topic or a subscription that is wanted no longer stays until `forget`, and of `refusals` it
        raises the first."""

    async def refusals(self, wanted: Shape) -> list[str]:
        """What cannot be as it is wanted now, in sentences: a topic does not move between disk and memory, and its
        limits do not change where that would delete what a subscription is not done with."""

    async def held(self) -> list[Held]:
        """Every topic that there is."""

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        """Returns when the event is kept as the topic says."""

    async def publish_all(self, topic: str, events: Sequence[tuple[str, Mapping[str, str], bytes]]) -> None:
        """Ids, headers and payloads, kept in this order. Of one that fails those before are kept and none after, as
        far as the broker told; all of them again adds what is missing, in its order."""

    async def publish_to(
        self, one: Subscription, id: str, headers: Mapping[str, str], payload: bytes
    ) -> Receipt:
        """The same for this subscription alone: nobody else takes it, or reads it."""

    def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
        """What comes, oldest first, until closed."""

    def given_up(self) -> AsyncGenerator[GivenUp]:
        """What subscriptions with `attempts` came to the end of, until closed."""

    async def waiting(self, subscription: Subscription) -> int:
        """How many events it was not done with yet."""

    def read(self, topic: str, since: int = 0, *, follow: bool = True) -> AsyncGenerator[Event]:
        """What is kept from sequence `since` on, then (`follow`) what comes; changes nothing for anybody."""

    async def event(self, topic: str, sequence: int) -> Event | None:
        """The one that is kept under this sequence; None where it is kept no longer."""

    async def drop(self, topic: str, sequence: int) -> None:
        """Delete one event. Idempotent."""

    async def last(self, topic: str) -> int:
        """The sequence of the newest event that was ever kept in it; 0 where there was none."""

    async def forget(self, shape: Shape) -> None:
        """Delete these topics with all their events, and these subscriptions."""
