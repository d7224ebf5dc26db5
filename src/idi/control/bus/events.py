"""Events for people: publish one, watch them go by, look at the dead letters, hand them out again.

Control speaks to the broker itself, over loopback, for as long as one request lasts: nothing of the platform's traffic
goes through here. What an operator publishes or replays is noted in the journal, by id and without its payload.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from idi.api.types import (
    DeadView,
    EventView,
    PublishedView,
    PublishRequest,
    ReplayRequest,
    ReplayView,
)
from idi.api.views import rfc3339
from idi.control.wording import did_you_mean
from idi.declaration.types import Module, Platform
from idi.parts.bus import own
from idi.parts.bus.cloudevents import Malformed, from_headers, message_id, structured, to_document, to_headers
from idi.parts.bus.interface import Bus, Event, Subscription
from idi.parts.errors import IdiError, Refused
from idi.parts.store.interface import JSON, Actor, Store
from idi.plan.bus import BUS
from idi.relay import letters as relay_letters

Connect = Callable[[], AbstractAsyncContextManager[Bus]]

OPERATOR = "operator"
MOST_NOTED = 100
"""Ids that an entry of the journal names."""


@dataclass(slots=True)
class Events:
    """`connect` gives a connection to the broker; raises `BusDown` where that is not there."""

    connect: Connect
    store: Store

    async def publish(
        self, request: PublishRequest, platform: Platform | None, actor: Actor
    ) -> PublishedView:
        declared = topics(platform)
        try:
            event = structured(request["event"], "the event")
        except Malformed as error:
            raise Refused(error.reason) from None
        known_topic(event.type, declared)
        async with self.connect() as bus:
            receipt = await bus.publish(
                event.type, message_id(OPERATOR, event), to_headers(event), event.data
            )
        await self.store.note(
            actor,
            "publish",
            {"id": event.attributes["id"], "source": event.attributes["source"]},
            subject=event.type,
        )
        return {"topic": event.type, "sequence": receipt.sequence, "duplicate": receipt.duplicate}

    async def tail(
        self, names: list[str], since: int, attributes: Mapping[str, str], platform: Platform | None
    ) -> AsyncGenerator[EventView]:
        """What is refused raises before the first one."""
        declared = topics(platform)
        for name in names:
            known_topic(name, declared)
        return self._tail(names or declared, since, attributes)

    async def _tail(
        self, names: list[str], since: int, attributes: Mapping[str, str]
    ) -> AsyncGenerator[EventView]:
        """What is kept in the order in which it came, then what comes. A group of tasks wraps what goes through it,
        also that nobody listens any more: so nothing does."""
        came: asyncio.Queue[EventView | IdiError] = asyncio.Queue(64)

        async def follow(bus: Bus, name: str, start: int) -> None:
            try:
                async for event in bus.read(name, start):
                    view = event_view(event)
                    if matches(view, attributes):
                        await came.put(view)
            except IdiError as error:
                await came.put(error)

        failed: IdiError | None = None
        async with self.connect() as bus:
            starts = {name: since or await bus.last(name) + 1 for name in names}
            if since:
                async with aclosing(in_order(bus, starts)) as kept:
                    async for event in kept:
                        starts[event.topic] = event.sequence + 1
                        view = event_view(event)
                        if matches(view, attributes):
                            yield view
            async with asyncio.TaskGroup() as tasks:
                readers = [tasks.create_task(follow(bus, name, start)) for name, start in starts.items()]
                try:
                    while not failed:
                        item = await came.get()
                        if isinstance(item, IdiError):
                            failed = item
                        else:
                            yield item
                except GeneratorExit:
                    pass
                finally:
                    for reader in readers:
                        reader.cancel()
        if failed:
            raise failed

    async def dead(self, platform: Platform | None) -> AsyncGenerator[DeadView]:
        topics(platform)
        return self._dead()

    async def _dead(self) -> AsyncGenerator[DeadView]:
        async with self.connect() as bus, aclosing(letters(bus)) as found:
            async for letter in found:
                yield dead_view(letter)

    async def replay(self, request: ReplayRequest, platform: Platform | None, actor: Actor) -> ReplayView:
        """What is chosen is noted, then each letter is handed over and taken from the dead: one that is asked for twice
        is handed over once. Those whose module takes no such events any more stay."""
        topics(platform)
        modules = modules_of(platform)
        wanted = set(request["ids"]) if "ids" in request else None
        module = request.get("module", "")
        chosen: set[int] = set()
        left: set[int] = set()
        async with self.connect() as bus:
            async with aclosing(letters(bus)) as found:
                async for letter in found:
                    its = letter.headers.get(own.DEAD_MODULE, "")
                    if (wanted is None or letter.sequence in wanted) and module in ("", its):
                        takes = its in modules and (modules[its].handles or consumed(letter, modules))
                        (chosen if takes else left).add(letter.sequence)
            replayed = sorted(chosen)
            if replayed:
                ids: dict[str, JSON] = {"ids": [*replayed[:MOST_NOTED]], "count": len(replayed)}
                await self.store.note(actor, "replay", ids, subject=module or own.DEAD)
            async with aclosing(letters(bus)) as found:
                async for letter in found:
                    if letter.sequence in chosen:
                        await self._hand_over(bus, letter, natively=consumed(letter, modules))
        gone = (wanted or set()) - chosen - left
        return {"replayed": replayed, "left": sorted(left), "gone": sorted(gone)}

    @staticmethod
    async def _hand_over(bus: Bus, letter: Event, *, natively: bool) -> None:
        module = letter.headers[own.DEAD_MODULE]
        if natively:
            # Into the topic itself, where the module's own client takes it, as it was when it was published.
            whole = await relay_letters.whole(bus, letter)
            if whole is None:
                raise Refused(
                    f"The data of dead letter {letter.sequence} is gone: the letter had no room for it, and its topic "
                    "keeps it no longer."
                )
            event = relay_letters.believed(whole, "")
            # Publishers choose ids, too; with its time this one is nobody else's.
            id = f"again {letter.sequence} {letter.at:.6f}"
            place = Subscription(letter.headers[own.DEAD_TOPIC], module)
            await bus.publish_to(place, id, event.headers, event.payload)
        else:
            await bus.publish(
                own.again_topic(module), f"again {letter.sequence}", letter.headers, letter.payload
            )
        await bus.drop(own.DEAD, letter.sequence)


def topics(platform: Platform | None) -> list[str]:
    if platform is None or BUS not in platform.modules:
        raise Refused("No module publishes or handles events.", "Declare them under publishes and handles.")
    return sorted(platform.events)


def modules_of(platform: Platform | None) -> dict[str, Module]:
    return {str(name): module for name, module in platform.modules.items()} if platform else {}


def consumed(letter: Event, modules: Mapping[str, Module]) -> bool:
    """Whether its module takes such events from the broker itself."""
    module = modules.get(letter.headers.get(own.DEAD_MODULE, ""))
    return module is not None and letter.headers.get(own.DEAD_TOPIC, "") in module.consumes


def known_topic(name: str, declared: list[str]) -> None:
    if name not in declared:
        hint = did_you_mean(name, declared)
        raise Refused(
            f"No event type is called '{name}'.", hint.strip() or f"There are {', '.join(declared)}."
        )


def letters(bus: Bus) -> AsyncGenerator[Event]:
    """Every dead letter that there is now."""
    return bus.read(own.DEAD, follow=False)


async def in_order(bus: Bus, starts: Mapping[str, int]) -> AsyncGenerator[Event]:
    """What topics hold now, from these sequences on, by the time at which it came; one event of each is held."""
    async with AsyncExitStack() as reading:
        rest = [
            await reading.enter_async_context(aclosing(bus.read(name, start, follow=False)))
            for name, start in starts.items()
        ]
        heads: list[tuple[float, int, Event]] = []
        for at, events in enumerate(rest):
            async for event in events:
                heappush(heads, (event.at, at, event))
                break
        while heads:
            _, at, event = heads[0]
            yield event
            async for following in rest[at]:
                heapreplace(heads, (following.at, at, following))
                break
            else:
                heappop(heads)


def event_view(event: Event) -> EventView:
    view: EventView = {
        "topic": event.topic,
        "sequence": event.sequence,
        "at": rfc3339(event.at),
        "event": None,
    }
    try:
        view["event"] = to_document(from_headers(event.headers, event.payload))
    except Malformed as error:
        view["malformed"] = error.reason
    return view


def matches(view: EventView, attributes: Mapping[str, str]) -> bool:
    document = view["event"] or {}
    return all(str(document.get(name, "")) == value for name, value in attributes.items())


def dead_view(letter: Event) -> DeadView:
    headers = letter.headers
    return {
        "id": letter.sequence,
        "topic": headers.get(own.DEAD_TOPIC, ""),
        "module": headers.get(own.DEAD_MODULE, ""),
        "at": rfc3339(letter.at),
        "reason": json.loads(headers.get(own.DEAD_REASON, '""')),
        "attempts": int(headers.get(own.DEAD_ATTEMPTS, "0")),
        "tries": [
            {"at": rfc3339(one["at"]), "reason": one["reason"]}
            for one in json.loads(headers.get(own.DEAD_TRIES, "[]"))
        ],
        "event": event_view(letter)["event"],
    }
