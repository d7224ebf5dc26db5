"""What attempts of events that are still open came to, and which relays are at work.

The broker keeps both as records (`idi.tries`), so that they outlive the relay; here they are at hand. How many attempts
an event had is the number of its records and not how often it was handed out: what a relay that ended had in its hands
was no attempt. A record is deleted when its event is done with, so what a relay reads when it begins is what is open,
and little; what a crash leaves over goes with the topic's keep time.

There may be two relays for a while, when one takes over from another: each goes on reading what the other writes. A
relay notes that it has begun, and that it has left with nothing in its hands. Where one has begun and not left, events
may be out that come again only when the broker misses their answer, and until then nobody can tell which event is the
next one: `settled` says when that is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from idi.parts.bus.errors import BusDown, BusFull
from idi.parts.bus.interface import Bus, Event
from idi.parts.bus.own import TRIES
from idi.parts.errors import IdiError

log = logging.getLogger(__name__)

MOST_KNOWN = 50_000
"""Attempts in memory. Beyond it the events that were not tried for longest are forgotten, and begin again."""

MOST_TRIES = 1000
"""Of one event: as many as a declaration may ask for."""

AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Try:
    at: float
    reason: str

    def document(self) -> dict[str, object]:
        return {"at": self.at, "reason": self.reason}


@dataclass(slots=True)
class Tries:
    """By key, which names a subscription and an event. `keep_s`: what is older is of nothing that is still open."""

    bus: Bus
    keep_s: float
    me: str = field(default_factory=lambda: uuid.uuid4().hex)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    _known: OrderedDict[str, dict[int, Try]] = field(default_factory=OrderedDict)
    """By key, the one that was tried last at the end; then by the record's sequence, which is negative where the
    broker had no room for it."""
    _count: int = 0
    _unkept: int = 0
    _read: int = 0
    _others: set[str] = field(default_factory=set)

    async def recall(self) -> None:
        """Say that this one has begun, and read what was written before that. Others may be at work and take records
        away meanwhile, so no count tells where the end is: one's own record does."""
        try:
            begun = await self._say("begun", self.me)
        except (
            BusDown
        ) as error:  # a full disk is not always said to be one; what is kept is delivered all the same
            log.warning("attempts cannot be noted: %s", error)
            begun = 0
        async with aclosing(self.bus.read(TRIES, 0, follow=begun > 0)) as found:
            async for event in found:
                self._heard(event)
                if 0 < begun <= event.sequence:
                    break
        self._look()

    async def follow(self, quiet_s: float) -> None:
        """Read on, until cancelled: what another relay writes meanwhile. After `quiet_s` nothing is out any more of
        one that ended without a word."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle(quiet_s))
            while True:
                try:
                    async with aclosing(self.bus.read(TRIES, self._read + 1)) as found:
                        async for event in found:
                            self._heard(event)
                            self._look()
                except IdiError as error:
                    log.info("attempts of other relays: %s", error)
                except Exception:  # deliveries go on without
                    log.exception("attempts of other relays")
                await asyncio.sleep(AGAIN_S)

    async def leave(self) -> None:
        """This relay has nothing in its hands any more."""
        await self._say("left", self.me)

    async def _settle(self, quiet_s: float) -> None:
        gone = set(self._others)
        await asyncio.sleep(quiet_s)
        self.settled.set()
        for other in gone & self._others:
            try:
                await self._say("left", other)
            except IdiError as error:
                log.info("a relay that ended is not noted: %s", error)

    def _look(self) -> None:
        if not self._others:
            self.settled.set()

    async def _say(self, what: str, relay: str) -> int:
        """The record's sequence; 0 where there is no room for it."""
        payload = json.dumps({what: relay, "by": self.me}).encode()
        try:
            return (await self.bus.publish(TRIES, f"{what} {relay}", {}, payload)).sequence
        except BusFull as error:
            log.warning("%s is not noted: %s", what, error)
            return 0

    def _heard(self, event: Event) -> None:
        self._read = max(self._read, event.sequence)
        try:
            told: Mapping[str, object] = json.loads(event.payload)
            if told["by"] == self.me:
                return
            if "begun" in told:
                self._others.add(str(told["begun"]))
            elif "left" in told:
                self._others.discard(str(told["left"]))
            else:
                one = Try(float(str(told["at"])), str(told["reason"]))
                self._keep(str(told["key"]), event.sequence, one)
        except (ValueError, KeyError, TypeError):
            log.warning("record %d of attempts cannot be read", event.sequence)

    async def add(self, key: str, reason: str) -> None:
        """It counts here whether or not the broker keeps it: else the event would be tried for ever."""
        one = Try(time.time(), reason)
        payload = json.dumps({"key": key, "by": self.me, **one.document()}).encode()
        try:
            sequence = (await self.bus.publish(TRIES, f"{key} {one.at}", {}, payload)).sequence
        except (BusFull, BusDown) as error:
            self._unkept -= 1
            self._keep(key, self._unkept, one)
            if isinstance(error, BusDown):
                raise
            log.warning("an attempt is known only until the relay ends: %s", error)
        else:
            self._keep(key, sequence, one)

    def _keep(self, key: str, sequence: int, one: Try) -> None:
        tries = self._known.setdefault(key, {})
        self._count += sequence not in tries
        tries[sequence] = one
        self._known.move_to_end(key)
        if len(tries) > MOST_TRIES:
            del tries[next(iter(tries))]
            self._count -= 1
        oldest = time.time() - self.keep_s
        while self._known:
            first = next(iter(self._known.values()))
            if self._count <= MOST_KNOWN and next(reversed(first.values())).at >= oldest:
                return
            self._count -= len(self._known.popitem(last=False)[1])

    def of(self, key: str) -> list[Try]:
        return sorted(self._known.get(key, {}).values(), key=lambda one: one.at)

    async def close(self, key: str) -> None:
        """The event is done with."""
        tries = self._known.pop(key, {})
        self._count -= len(tries)
        for sequence in tries:
            if sequence > 0:
                await self.bus.drop(TRIES, sequence)

    def __len__(self) -> int:
        """How many attempts are known."""
        return self._count
