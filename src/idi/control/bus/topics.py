"""What the bus holds, held against what is declared: what is declared no longer goes, and nothing that is kept goes
with it.

The relay makes topics and subscriptions; it is control that takes them away, for a relay of yesterday that starts once
more would take away what is new. A subscription to a topic that is declared goes with its declaration: nobody is handed
anything by it. A topic that is declared no longer goes when it is empty; while it holds events it stays as it is, with
everybody's place in it, so that whoever declares it again goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from idi.declaration.types import OWN_EVENTS, Platform
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus, Held, Shape, Subscription, Topic
from idi.parts.bus.own import again_topic
from idi.plan.bus import BUS, topic

log = logging.getLogger(__name__)

ANSWER_S = 10.0


@dataclass(slots=True)
class Topics:
    """`connect` gives a connection to the broker; raises `BusDown` where that is not there."""

    connect: Callable[[], AbstractAsyncContextManager[Bus]]

    async def ahead(self, platform: Platform) -> list[str]:
        """What this declaration would leave over, or cannot change yet. Nothing where the broker is not there."""
        try:
            return await self._look(platform, tidy=False)
        except BusDown:
            return []

    async def tidy(self, platform: Platform) -> list[str]:
        """Take away what it leaves over; the same in words."""
        try:
            return await self._look(platform, tidy=True)
        except BusDown as error:
            log.info("nothing is tidied up: %s", error)
            return ["The bus does not answer: what is declared no longer stays there until the next idi up."]

    async def _look(self, platform: Platform, *, tidy: bool) -> list[str]:
        if BUS not in platform.modules:
            return []
        wanted = Shape({name: Topic(name, **topic(platform, name)) for name in platform.events})  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(ANSWER_S), self.connect() as bus:
                held = await bus.held()
                notes = [*left_over(held, platform), *await bus.refusals(wanted)]
                if tidy:
                    await bus.forget(gone(held, platform))
                return notes
        except TimeoutError as error:
            raise BusDown("The bus does not answer in time.") from error


def gone(held: Iterable[Held], platform: Platform) -> Shape:
    """What can go."""
    topics: dict[str, Topic] = {}
    subscriptions: list[Subscription] = []
    again = {again_topic(module.name) for module in platform.modules.values() if module.handles}
    for one in held:
        ours = one.topic.startswith(OWN_EVENTS)
        if one.topic in platform.events:
            taking = takers(platform, one.topic)
            subscriptions += [
                Subscription(one.topic, module) for module in one.waiting if module not in taking
            ]
        elif ours and (one.topic in again or not one.topic.startswith(again_topic(""))):
            continue
        elif not one.events:
            topics[one.topic] = Topic(one.topic)
    return Shape(topics, subscriptions)


def left_over(held: Iterable[Held], platform: Platform) -> Iterator[str]:
    for one in held:
        if one.topic in platform.events:
            taking = takers(platform, one.topic)
            for module, waiting in sorted(one.waiting.items()):
                if waiting and module not in taking:
                    yield (
                        f"{module} takes {one.topic} no longer: {counted(waiting)} that it is not done with will "
                        "not be handed to it."
                    )
        elif one.events and not one.topic.startswith(OWN_EVENTS):
            yield (
                f"{one.topic} is declared no longer: what it holds ({counted(one.events)}) stays until it is too old. "
                "Declare it again, and whoever took it goes on where it was."
            )


def takers(platform: Platform, name: str) -> set[str]:
    return {m.name for m in platform.modules.values() if name in m.handles or name in m.consumes}


def counted(events: int) -> str:
    return "1 event" if events == 1 else f"{events} events"
