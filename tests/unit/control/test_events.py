"""Events for people, through control: what is published, watched, dead, and handed out again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from idi.api.types import EventView, PublishRequest, ReplayRequest
from idi.control.bus.events import Events
from idi.declaration.load import Loaded, load
from idi.declaration.types import Platform
from idi.parts.bus.cloudevents import to_headers
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus, Event, Shape, Subscription, Topic
from idi.parts.bus.own import DEAD, TRIES, again_topic
from idi.parts.bus.simulator import Kept, SimulatedBus
from idi.parts.errors import Refused
from idi.parts.store.interface import Actor
from idi.parts.store.memory import MemoryStore
from idi.plan.bus import with_bus
from idi.relay import letters
from idi.relay.tries import Try
from tests.unit.relay.stage import TYPE, event

pytestmark = pytest.mark.requirement("B1")

ME = Actor("peer", "me")
TEXT = """\
platform: shop
modules:
  jede: {run: serve, publishes: [jede.decided, jede.revoked]}
  cam: {run: serve, handles: {jede.decided: /}}
  pas: {run: serve, handles: {jede.decided: /}}
"""


def platform(text: str = TEXT) -> Platform:
    found = load(text, file="platform.yaml", environment="dev")
    assert isinstance(found, Loaded)
    return with_bus(found.platform)


@dataclass
class Desk:
    """`connections`: how many there are now."""

    kept: Kept = field(default_factory=Kept)
    store: MemoryStore = field(default_factory=MemoryStore)
    platform: Platform | None = field(default_factory=platform)
    connections: int = 0

    @property
    def bus(self) -> SimulatedBus:
        return SimulatedBus(self.kept)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Bus]:
        self.connections += 1
        try:
            async with self.bus as bus:
                yield bus
        finally:
            self.connections -= 1

    @property
    def events(self) -> Events:
        return Events(self.connect, self.store)

    async def publish(self, document: Mapping[str, Any]) -> Any:
        request: PublishRequest = {"event": dict(document)}
        return await self.events.publish(request, self.platform, ME)

    async def tail(self, count: int, *names: str, since: int = 0, **attributes: str) -> list[EventView]:
        found: list[EventView] = []
        async with (
            asyncio.timeout(5),
            aclosing(await self.events.tail([*names], since, attributes, self.platform)) as views,
        ):
            async for view in views:
                found.append(view)
                if len(found) == count:
                    break
        return found

    async def dead(self) -> list[Any]:
        return [one async for one in await self.events.dead(self.platform)]

    async def replay(self, **request: Any) -> Any:
        asked: ReplayRequest = {**request}  # type: ignore[typeddict-item]
        return await self.events.replay(asked, self.platform, ME)

    async def bury(self, id: str, module: str = "cam", data: bytes = b"{}") -> None:
        one = Event(TYPE, int(id), to_headers(event(id)), data, 0.0)
        await letters.write(
            self.bus, f"letter {id}", module, one, "answered 500", [Try(0.5, "a"), Try(1.5, "b")]
        )

    async def notes(self) -> list[tuple[str, str, Any]]:
        return [(one.action, one.subject, dict(one.detail)) for one in (await self.store.entries())[1:]]


@pytest.fixture
async def desk() -> Desk:
    found = Desk()
    names = (TYPE, "jede.revoked", DEAD, TRIES, again_topic("cam"), again_topic("pas"))
    await found.bus.shape(Shape({name: Topic(name) for name in names}))
    return found


def document(id: str, **changes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": id,
        "source": "/idi/operator",
        "type": TYPE,
        "data": {"n": id},
        **changes,
    }


# --- publish -------------------------------------------------------------------------------------------


async def test_what_an_operator_publishes_is_kept_and_noted_without_its_data(desk: Desk) -> None:
    secret = document("1", data={"password": "hunter2"})
    assert await desk.publish(secret) == {"topic": TYPE, "sequence": 1, "duplicate": False}
    assert await desk.publish(secret) == {"topic": TYPE, "sequence": 1, "duplicate": True}
    [kept] = [one async for one in desk.bus.read(TYPE, follow=False)]
    assert json.loads(kept.payload) == {"password": "hunter2"}
    notes = await desk.notes()
    assert notes[0] == ("publish", TYPE, {"id": "1", "source": "/idi/operator"})
    assert "hunter2" not in str(notes)
    assert desk.connections == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "the event has no id."),
        ({"specversion": "0.3"}, "the event has specversion '0.3'; 1.0 is read."),
        ({"type": "jede.decide"}, "No event type is called 'jede.decide'. Did you mean"),
        ({"type": "x"}, "No event type is called 'x'. There are jede.decided, jede.revoked."),
        ({"type": DEAD}, f"No event type is called '{DEAD}'."),
        (
            {"a": "x" * 4000, "b": "x" * 4000, "c": "x" * 4000, "d": "x" * 4000},
            "The attributes of the event are longer",
        ),
    ],
)
async def test_what_is_refused_is_not_kept_and_not_noted(
    desk: Desk, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused) as caught:
        await desk.publish({**document("1"), **changes})
    assert str(caught.value).startswith(reason)
    assert (desk.kept.last, await desk.notes()) == ({}, [])


async def test_a_broker_that_is_down_is_said_and_nothing_is_noted(desk: Desk) -> None:
    desk.kept.down = True
    with pytest.raises(BusDown):
        await desk.publish(document("1"))
    assert await desk.notes() == []


@pytest.mark.parametrize("of", [None, "platform: shop\nmodules: {cam: {run: serve}}\n"])
async def test_without_events_there_is_nothing_to_ask(desk: Desk, of: str | None) -> None:
    desk.platform = platform(of) if of else None
    for ask in (lambda: desk.publish(document("1")), lambda: desk.tail(1), desk.dead, desk.replay):
        with pytest.raises(Refused, match="No module publishes or handles events"):
            await ask()
    assert desk.connections == 0


# --- tail ----------------------------------------------------------------------------------------------


async def test_watching_shows_what_comes_of_every_type(desk: Desk) -> None:
    await desk.publish(document("old"))
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(desk.tail(2))
        await asyncio.sleep(0.05)
        await desk.publish(document("1", subject="fall é"))
        await desk.publish(document("2", type="jede.revoked"))
    first, second = sorted(watching.result(), key=lambda view: view["topic"])
    assert first["event"] == document("1", subject="fall é", datacontenttype="application/json")
    assert (first["topic"], first["sequence"]) == (TYPE, 2)
    assert first["at"].endswith("Z")
    assert (second["topic"], second["sequence"]) == ("jede.revoked", 1)
    assert desk.connections == 0


async def test_watching_from_a_number_on_and_by_attributes(desk: Desk) -> None:
    for number in range(1, 9):
        await desk.publish(document(str(number), subject=f"case-{number % 2}", x=number % 4))

    async def ids(count: int, **asked: Any) -> list[str]:
        return [view["event"]["id"] for view in await desk.tail(count, TYPE, **asked) if view["event"]]

    assert await ids(3, since=3) == ["3", "4", "5"]
    assert await ids(4, since=1, subject="case-1") == ["1", "3", "5", "7"]
    assert await ids(2, since=1, subject="case-1", x="3") == ["3", "7"]


async def test_what_is_kept_of_several_types_comes_in_the_order_in_which_it_came(desk: Desk) -> None:
    sent = [(str(number), TYPE if number % 3 else "jede.revoked") for number in range(1, 12)]
    for id, type in sent:
        await desk.publish(document(id, type=type))
        await asyncio.sleep(0.001)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(desk.tail(12, since=1))
        await asyncio.sleep(0.05)
        await desk.publish(document("12"))
    seen = [(view["event"]["id"], view["topic"]) for view in watching.result() if view["event"]]
    assert seen == [*sent, ("12", TYPE)]


async def test_watching_shows_what_is_no_event(desk: Desk) -> None:
    await desk.bus.publish(TYPE, "1", {"ce-id": "1"}, b"plain")
    await desk.bus.publish(TYPE, "2", to_headers(event("2")), b"[" * 100_000)
    first, second = await desk.tail(2, since=1)
    assert (first["event"], first["malformed"]) == (None, "the event has no source.")
    assert second["event"] is not None
    assert "data_base64" in second["event"]


class Leaving(SimulatedBus):
    async def last(self, topic: str) -> int:
        raise BusDown("The broker left.")


async def test_a_broker_that_leaves_meanwhile_is_said_as_what_it_is(desk: Desk) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Bus]:
        yield Leaving(desk.kept)

    views = await Events(connect, desk.store).tail([], 0, {}, desk.platform)
    with pytest.raises(BusDown, match="The broker left"):
        await anext(views)


async def test_an_unknown_type_is_refused_before_the_first(desk: Desk) -> None:
    with pytest.raises(Refused, match="Did you mean"):
        await desk.events.tail(["jede.decidde"], 0, {}, desk.platform)
    assert desk.connections == 0


# --- dead letters --------------------------------------------------------------------------------------


async def test_a_dead_letter_as_it_is_shown(desk: Desk) -> None:
    assert await desk.dead() == []
    await desk.bury("7", data=b'{"case":7}')
    [view] = await desk.dead()
    assert view["at"].endswith("Z")
    assert {name: view[name] for name in view if name != "at"} == {
        "id": 1,
        "topic": TYPE,
        "module": "cam",
        "reason": "answered 500",
        "attempts": 2,
        "tries": [
            {"at": "1970-01-01T00:00:00.500Z", "reason": "a"},
            {"at": "1970-01-01T00:00:01.500Z", "reason": "b"},
        ],
        "event": {**NEEDED, "id": "7", "datacontenttype": "application/json", "data": {"case": 7}},
    }
    assert desk.connections == 0


NEEDED = {"specversion": "1.0", "source": "/jede", "type": TYPE}


async def test_a_replay_hands_a_letter_to_its_module_and_takes_it_from_the_dead(desk: Desk) -> None:
    for number in range(1, 5):
        await desk.bury(str(number), module="pas" if number == 2 else "cam")
    assert await desk.replay(ids=[3, 9]) == {"replayed": [3], "left": [], "gone": [9]}
    assert await desk.replay(ids=[3]) == {"replayed": [], "left": [], "gone": [3]}
    assert [view["id"] for view in await desk.dead()] == [1, 2, 4]
    assert await desk.replay(module="pas") == {"replayed": [2], "left": [], "gone": []}
    assert await desk.replay() == {"replayed": [1, 4], "left": [], "gone": []}
    again = [one async for one in desk.bus.read(again_topic("cam"), follow=False)]
    assert [one.headers["ce-id"] for one in again] == ["3", "1", "4"]
    assert [one.headers["ce-id"] async for one in desk.bus.read(again_topic("pas"), follow=False)] == ["2"]
    assert await desk.notes() == [
        ("replay", DEAD, {"ids": [3], "count": 1}),
        ("replay", "pas", {"ids": [2], "count": 1}),
        ("replay", DEAD, {"ids": [1, 4], "count": 2}),
    ]


async def test_a_letter_whose_module_handles_nothing_any_more_holds_no_other_up(desk: Desk) -> None:
    await desk.bury("1", module="gone")
    await desk.bury("2", module="cam")
    assert await desk.replay() == {"replayed": [2], "left": [1], "gone": []}
    assert [view["id"] for view in await desk.dead()] == [1]


async def test_a_letter_of_another_module_is_not_replayed_by_its_number(desk: Desk) -> None:
    await desk.bury("1", module="cam")
    assert await desk.replay(ids=[1], module="pas") == {"replayed": [], "left": [], "gone": [1]}
    assert len(await desk.dead()) == 1


class Undropping(SimulatedBus):
    """A broker that goes away between handing a letter out and taking it from the dead."""

    async def drop(self, topic: str, sequence: int) -> None:
        raise BusDown("away")


async def test_a_replay_that_is_cut_short_and_asked_for_again_hands_out_once(desk: Desk) -> None:
    await desk.bury("1")

    @asynccontextmanager
    async def connect() -> AsyncIterator[Bus]:
        yield Undropping(desk.kept)

    broken = Events(connect, desk.store)
    for _ in range(2):
        with pytest.raises(BusDown):
            await broken.replay({}, desk.platform, ME)
    assert len(await desk.dead()) == 1
    assert await desk.replay() == {"replayed": [1], "left": [], "gone": []}
    assert len([one async for one in desk.bus.read(again_topic("cam"), follow=False)]) == 1


CONSUMING = TEXT + "  sis: {run: serve, consumes: [jede.decided]}\n"


async def test_a_consumers_letter_goes_back_into_its_topic_for_it_alone_and_as_it_was(desk: Desk) -> None:
    desk.platform = platform(CONSUMING)
    sis, cam = Subscription(TYPE, "sis"), Subscription(TYPE, "cam")
    await desk.bus.shape(Shape({}, (sis, cam)))
    await desk.bury("1", module="sis", data=b"data")
    assert (await desk.replay(module="sis"))["replayed"] == [1]
    assert await desk.dead() == []
    assert (await desk.bus.waiting(sis), await desk.bus.waiting(cam)) == (1, 0)
    async with aclosing(desk.bus.take(sis)) as found:
        one = (await anext(found)).event
    assert one.payload == b"data"
    assert dict(one.headers) == to_headers(event("1")), "nothing of ours is left on it"


async def test_a_consumers_letter_without_its_data_takes_them_along_or_stays(desk: Desk) -> None:
    desk.platform = platform(CONSUMING)
    sis = Subscription(TYPE, "sis")
    await desk.bus.shape(Shape({}, (sis,)))
    kept = await desk.bus.publish(TYPE, "x", to_headers(event("1")), b"large")
    headers = letters.dead_headers(
        "sis", Event(TYPE, kept.sequence, to_headers(event("1")), b"", 0.0), "r", []
    )
    for number in (1, 2):
        await desk.bus.publish(DEAD, f"letter {number}", {**headers, letters.CUT: "true"}, b"")
    await desk.replay(ids=[1])
    again = await desk.bus.event(TYPE, kept.sequence + 1)
    assert again is not None
    assert (again.payload, letters.CUT in again.headers) == (b"large", False)
    await desk.bus.drop(TYPE, kept.sequence)
    with pytest.raises(Refused, match="keeps it no longer"):
        await desk.replay(ids=[2])
    assert [one["id"] for one in await desk.dead()] == [2]
