"""Handing events to modules: a POST through the mesh for each, until it is answered 2xx.

For every module and type there is one subscription at the broker, and a task that takes from it. An attempt that fails
is written down (`idi.tries`) and the event is asked for again after a pause; after the last attempt, or where the
module says that no other would help, the event goes to the dead letters (`idi.dead`), payload and attempts with it, and
only then is the broker told that it is done. A relay that ends in between repeats: at least once, and the same dead
letter is kept once.

Whatever was taken is in hand (`_held`) until the broker has its answer, and the broker is told in between that it is
worked on: so an event that waits for its turn is not handed out a second time meanwhile. How much is in hand is
bounded, by what a subscription may have out and by bytes; beyond it nothing is taken.

Where events have an order, those with the same value of its attribute go one after another (`lanes`), and one that
failed stays in hand during its pause, so that those behind it stay where they are. A relay that begins after one that
was killed waits first until that one's events have come again (`Tries.settled`), or newer ones would overtake them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass

import aiohttp

from idi.parts.bus.cloudevents import CloudEvent, Malformed, from_headers, to_headers
from idi.parts.bus.interface import Bus, Delivery, Event, Subscription
from idi.parts.bus.own import DEAD_TOPIC
from idi.parts.errors import IdiError
from idi.relay import letters
from idi.relay.lanes import Lanes
from idi.relay.settings import LONGEST_WAIT_S, Deliver, Settings
from idi.relay.tries import Tries

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Deliveries under way to one module for one type."""

HELD_BYTES = 32 << 20
"""Payloads in hand for one module and type."""

GIVE_UP, NEVER = "x-idi-give-up", float("inf")
"""The header by which a module says that no further attempt would help."""

REASON_CHARS = 500
AGAIN_S = 2.0
"""When to try again what a bug, or the broker, came between."""


@dataclass(slots=True, eq=False)
class Held:
    """An event in hand. `busy`: an attempt is under way. `answered`: the broker has been told what becomes of it."""

    delivery: Delivery
    event: Event
    key: str
    size: int
    task: asyncio.Task[None] | None = None
    busy: bool = False
    answered: bool = False


class Delivering:
    """`run` takes what a subscription gets and hands it to its module, until `leave`, or until cancelled."""

    def __init__(
        self,
        settings: Settings,
        subscription: Subscription,
        bus: Bus,
        http: aiohttp.ClientSession,
        tries: Tries,
    ) -> None:
        self._settings, self._subscription = settings, subscription
        self._module = subscription.module
        self._bus, self._http, self._tries = bus, http, tries
        self._held: dict[int, Held] = {}
        self._bytes = 0
        self._freed = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._lanes = Lanes()
        self._leaving = asyncio.Event()

    def __len__(self) -> int:
        """How many events are in hand."""
        return len(self._held)

    async def run(self) -> None:
        """Returns when it was told to leave and no attempt is under way."""
        async with asyncio.TaskGroup() as beating:
            beat = beating.create_task(self._beat())
            settling = beating.create_task(self._settle())
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(self._take(tasks))
                await self._leaving.wait()
                # What came together with one that waits for room is in hand too before no more is taken.
                self._freed.set()
                await asyncio.sleep(0)
                taking.cancel()
                for held in self._held.values():
                    if held.task is not None and not held.busy:
                        held.task.cancel()
            beat.cancel()
            settling.cancel()

    def leave(self) -> None:
        """Take nothing more, and begin no further attempt."""
        self._leaving.set()

    async def hand_back(self) -> None:
        """After `run`: what is still in hand is handed out again at once, the oldest first."""
        for _, held in sorted(self._held.items()):
            if held.answered:
                continue
            try:
                await held.delivery.again(0.0)
            except IdiError as error:
                log.info("%s is not handed back: %s", held.key, error)
        self._held.clear()

    async def _settle(self) -> None:
        await self._tries.settled.wait()
        self._lanes.begin()

    async def _take(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                async with aclosing(self._bus.take(self._subscription)) as found:
                    async for delivery in found:
                        await self._accept(delivery, tasks)
            except Exception:  # one subscription's trouble would end all others
                log.exception("events of %s for %s", self._subscription.topic, self._module)
            await asyncio.sleep(AGAIN_S)

    async def _accept(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        event = letters.believed(delivery.event, self._module)
        known = self._held.get(event.sequence)
        if known is not None and not known.answered:
            # It came again although it is in hand: the broker missed a beat. Its answer is to the newest.
            known.delivery = delivery
            return
        key = letters.key_of(self._module, event)
        held = self._held[event.sequence] = Held(delivery, event, key, len(event.payload))
        while self._bytes and self._bytes + held.size > HELD_BYTES and not self._leaving.is_set():
            self._freed.clear()
            await self._freed.wait()
        if self._leaving.is_set():
            return  # to be handed back
        self._bytes += held.size
        held.task = tasks.create_task(self._hand(held))

    async def _beat(self) -> None:
        """Tell the broker of what is in hand that it is worked on, three times in the time that it waits."""
        while True:
            await asyncio.sleep(self._subscription.answer_s / 3)
            for held in [*self._held.values()]:
                if held.answered:
                    continue
                try:
                    await held.delivery.working()
                except Exception as error:  # noqa: BLE001 - it is handed out again then, and is no loss
                    log.info("%s for %s: %s", self._subscription.topic, self._module, error)
                    break

    async def _hand(self, held: Held) -> None:
        """Whatever goes wrong meanwhile: the broker hands the event out again."""
        try:
            await self._handed(held)
        except IdiError as error:
            log.info("%s to %s: %s", self._subscription.topic, self._module, error)
        except Exception:
            log.exception("%s", held.key)
        # Not where this was cancelled: then it is still in hand.
        if self._held.get(held.event.sequence) is held:
            del self._held[held.event.sequence]
        self._bytes -= held.size
        self._freed.set()

    async def _handed(self, held: Held) -> None:
        # What was dead once says itself which type it is.
        topic = held.event.headers.get(DEAD_TOPIC, held.event.topic)
        deliver = self._settings.deliveries.get((topic, self._module))
        if deliver is None:
            await self._bury(held, f"{self._module} handles {topic} no longer")
            return
        event = await letters.whole(self._bus, held.event)
        if event is None:
            await self._bury(
                held, f"{topic} does not keep it any longer, and its letter had no room for its data"
            )
            return
        held.event = event
        try:
            sent = from_headers(event.headers, event.payload)
        except Malformed as error:
            await self._bury(held, f"it is no CloudEvent: {error.reason}")
            return
        if sent.type != topic:
            # Whoever may publish the one may not publish the other, and a module believes what it is handed.
            await self._bury(held, f"it says that its type is {sent.type[:100]!r}")
            return
        value = sent.attributes.get(deliver.order, "") if deliver.order else ""
        async with self._lanes.turn(value, event.sequence) if value else nullcontext():
            while (wait_s := await self._attempt(held, deliver, sent)) is not None:
                if not value:
                    held.answered = True
                    await held.delivery.again(wait_s)
                    return
                if self._leaving.is_set():
                    raise asyncio.CancelledError  # as the others: still in hand, to be handed back
                await asyncio.sleep(wait_s)

    async def _attempt(self, held: Held, deliver: Deliver, event: CloudEvent) -> float | None:
        """How long to wait for the next one; None: there is none."""
        async with self._slots:
            held.busy = True
            try:
                return await self._attempted(held, deliver, event)
            except IdiError as error:
                # The broker does not answer, or is full. One that the module took is not posted again for that.
                if held.answered:
                    raise
                log.info("%s to %s: %s", self._subscription.topic, self._module, error)
                return max(AGAIN_S, deliver.first_s)
            finally:
                held.busy = False

    async def _attempted(self, held: Held, deliver: Deliver, event: CloudEvent) -> float | None:
        before = self._tries.of(held.key)
        if len(before) >= deliver.attempts:
            # It is dead since before, but its letter could not be kept.
            await self._bury(held, before[-1].reason)
            return None
        attempt = len(before) + 1
        try:
            reason, wait_s = await self._post(deliver, event, attempt)
        except Exception as error:
            # Ours, and no reason to end other deliveries. It counts, so that the event does not stay for ever.
            log.exception("%s", held.key)
            reason, wait_s = f"the relay could not send it: {type(error).__name__}", 0.0
        if not reason:
            await self._done(held)
            return None
        await self._tries.add(held.key, reason)
        if attempt >= deliver.attempts or wait_s == NEVER:
            await self._bury(held, reason)
            return None
        return max(deliver.pause_s(attempt), wait_s)

    async def _post(self, deliver: Deliver, event: CloudEvent, attempt: int) -> tuple[str, float]:
        """Why it failed, empty where it did not; and how long the module asks to be left alone: `NEVER` is for good."""
        headers = {**to_headers(event), "x-idi-attempt": str(attempt)}
        for name in ("traceparent", "tracestate"):
            value = event.attributes.get(name, "")
            if value and value.isascii():
                headers[name] = value
        timeout_s = self._settings.timeout_s
        try:
            async with self._http.post(
                self._settings.urls[deliver.module] + deliver.path,
                data=event.data,
                headers=headers,
                # Data that has no type has none at the module either.
                skip_auto_headers=("content-type",),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as answer:
                if 200 <= answer.status < 300:
                    return "", 0.0
                told = (await answer.content.read(2000)).decode(errors="replace")
                reason = f"answered {answer.status}" + (f": {told}" if told.strip() else "")
                never = GIVE_UP in answer.headers
                return in_a_line(reason), NEVER if never else asked_for(answer.headers)
        except TimeoutError:
            return f"no answer within {timeout_s:g} s", 0.0
        except (aiohttp.ClientError, OSError) as error:
            return in_a_line(f"no answer: {error or type(error).__name__}"), 0.0

    async def _done(self, held: Held) -> None:
        held.answered = True
        await held.delivery.done()
        try:
            await self._tries.close(held.key)
        except IdiError as error:
            log.info("attempts of %s stay until they are too old: %s", held.key, error)

    async def _bury(self, held: Held, reason: str) -> None:
        event = held.event
        await letters.write(self._bus, held.key, self._module, event, reason, self._tries.of(held.key))
        log.warning("%s is dead for %s: %s", event.headers.get(DEAD_TOPIC, event.topic), self._module, reason)
        await self._done(held)


def in_a_line(text: str) -> str:
    """What a module answered goes into logs and onto terminals: one line, and nothing that a terminal obeys."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:REASON_CHARS]


def asked_for(headers: Mapping[str, str]) -> float:
    """Retry-After in seconds; a date, or nonsense, is none."""
    value = headers.get("retry-after", "").strip()
    seconds = value.isascii() and value.isdecimal() and len(value) < 10
    return min(float(value), LONGEST_WAIT_S) if seconds else 0.0
