"""Events under seeded kills: whatever a publisher was told is kept is handled, or lies in the dead letters.

Publishers (over HTTP and with a native client) write down what they were told; a handler and a consumer write down
what came to them before they answer. Meanwhile broker, relay, handlers, their sidecars and control are killed, and one
is paused for a while. At the end the history is held together: an acknowledged event that reached a side neither alive
nor dead is lost, and none may be. What was not acknowledged may come or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nats.errors
import pytest
from nats.aio.client import Client

from tests.local.test_platform_events import DECLARATION, EVENTFUL, urls
from tests.support.platform import Platform, alive, platform, until
from tests.support.scale import scale
from tests.support.steady import figure

pytestmark = pytest.mark.requirement("B1", "T3")

EVENTS = scale(3_000, 200_000)
RATE = scale(75.0, 200.0)
"""Of each of the two publishers, events a second."""

AT_ONCE = 32
BATCH = 10
KILLS_EVERY_S = (1.0, 3.0)
TARGETS = (
    "bus",
    "relay",
    "mail-1",
    "stock-1",
    "mail-1 sidecar",
    "bus-1 sidecar",
    "relay-1 sidecar",
    "control",
    "pause",
)


@dataclass
class History:
    """What publishers were told, by id."""

    kept: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def shop() -> Iterator[Platform]:
    with platform(DECLARATION.replace("attempts: 3", "attempts: 12"), {"eventful.py": EVENTFUL}) as one:
        one.up()
        yield one


@pytest.mark.timeout(3600)
async def test_no_acknowledged_event_is_lost(shop: Platform, seeded: random.Random) -> None:
    history = History()
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill(shop, seeded, history, done))
        half = EVENTS // 2
        async with asyncio.TaskGroup() as publishers:
            publishers.create_task(publish_by_http(shop, history, half))
            publishers.create_task(publish_natively(shop, history, EVENTS - half))
        done.set()
        await killing
    await asyncio.to_thread(shop.up)
    await asyncio.to_thread(shop.wait_ready)
    stuck = await asyncio.to_thread(settle, shop, history)
    figure(
        "events under kills",
        published=EVENTS,
        acknowledged=len(history.kept),
        refused=sum(history.refused.values()),
        lost={side: len(ids) for side, ids in stuck.items()},
        kills=dict(history.kills),
        repeated=repeated(shop),
    )
    assert not any(stuck.values()), {side: sorted(ids)[:5] for side, ids in stuck.items()}
    assert len(history.kept) > EVENTS // 4
    assert await asyncio.to_thread(shop.audit)


def settle(shop: Platform, history: History) -> dict[str, set[str]]:
    """What of the acknowledged is still missing on each side when nothing comes any more."""
    missing = {"mail": set(history.kept), "stock": set(history.kept)}

    def all_there() -> bool:
        seen = handled(shop)
        dead = {letter["event"]["id"] for letter in letters(shop) if letter["event"]}
        missing["mail"] = history.kept - seen["mail"] - dead
        missing["stock"] = history.kept - seen["stock"]
        return not any(missing.values())

    with suppress(AssertionError):
        until(all_there, scale(90.0, 600.0), every_s=1.0)
    return missing


def handled(shop: Platform) -> dict[str, set[str]]:
    """mail hears with an attempt that the relay counts, stock with one of the broker's; they write into files of
    their own."""
    found: dict[str, set[str]] = {}
    for module in ("mail", "stock"):
        path = shop.folder / f"heard-{module}"
        lines = path.read_text().splitlines() if path.exists() else []
        found[module] = {json.loads(line)[1] for line in lines if line.endswith("]")}
    return found


def repeated(shop: Platform) -> int:
    path = shop.folder / "heard-mail"
    counted = Counter(json.loads(line)[1] for line in path.read_text().splitlines() if line.endswith("]"))
    return sum(count - 1 for count in counted.values())


def letters(shop: Platform) -> list[dict[str, dict[str, str]]]:
    return [json.loads(line) for line in shop.run("events", "dead", "--json").stdout.splitlines()]


def document(id: str) -> dict[str, object]:
    return {"specversion": "1.0", "id": id, "source": "/history", "type": "order.placed", "data": {"id": id}}


async def publish_by_http(shop: Platform, history: History, count: int) -> None:
    """In batches, each sent again (same ids) as often as it takes; given up only after many tries."""
    url = (await asyncio.to_thread(urls, shop, "orders"))["EVENTS_URL"]
    room = asyncio.Semaphore(AT_ONCE)
    headers = {"content-type": "application/cloudevents-batch+json"}

    async def one(client: httpx.AsyncClient, ids: list[str]) -> None:
        try:
            for _ in range(200):
                try:
                    answer = await client.post(
                        url, content=json.dumps([document(id) for id in ids]), headers=headers
                    )
                except httpx.HTTPError as error:
                    history.refused[type(error).__name__] += 1
                else:
                    if answer.status_code == 200:
                        history.kept.update(ids)
                        return
                    assert answer.status_code == 503, answer.text
                    history.refused["503"] += 1
                await asyncio.sleep(0.2)
        finally:
            room.release()

    async with httpx.AsyncClient(timeout=15, trust_env=False) as client, asyncio.TaskGroup() as tasks:
        for start in range(0, count, BATCH):
            await asyncio.sleep(BATCH / RATE)
            await room.acquire()
            ids = [f"http-{number}" for number in range(start, min(count, start + BATCH))]
            tasks.create_task(one(client, ids))


async def publish_natively(shop: Platform, history: History, count: int) -> None:
    url = (await asyncio.to_thread(urls, shop, "orders"))["BUS_URL"]
    client = Client()

    async def noted(error: Exception) -> None:
        history.refused[type(error).__name__] += 1

    await client.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=noted)
    stream = client.jetstream(timeout=3)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(id: str) -> None:
        headers = {f"ce-{name}": str(value) for name, value in document(id).items() if name != "data"}
        try:
            for _ in range(200):
                try:
                    await stream.publish("order.placed", b"{}", headers={**headers, "Nats-Msg-Id": id})
                except (nats.errors.Error, TimeoutError) as error:
                    history.refused[type(error).__name__] += 1
                    await asyncio.sleep(0.2)
                else:
                    history.kept.add(id)
                    return
        finally:
            room.release()

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            if number % BATCH == 0:
                await asyncio.sleep(BATCH / RATE)
            await room.acquire()
            tasks.create_task(one(f"native-{number}"))
    await client.close()


async def kill(shop: Platform, chance: random.Random, history: History, done: asyncio.Event) -> None:
    """One after another, in rounds of another order each, until everything is published."""
    waiting = ["relay-1", "bus-1"]
    while not done.is_set():
        waiting = waiting or chance.sample(TARGETS, len(TARGETS))
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), chance.uniform(*KILLS_EVERY_S))
        target = waiting.pop()
        pids = await asyncio.to_thread(seats, shop)
        pid = pids.get("mail-1" if target == "pause" else target, 0)
        if not pid or not alive(pid):
            continue
        history.kills[target] += 1
        if target == "pause":
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(1.0)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if target == "control":
            await asyncio.to_thread(shop.up, check=False)


def seats(shop: Platform) -> dict[str, int]:
    """Every process of the platform's modules: `bus-1`, `bus-1 sidecar`; and control."""
    found: dict[str, int] = {}
    for pid in shop.processes():
        with suppress(OSError, ValueError):
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            [mark] = [item.decode() for item in environ if item.startswith(b"IDI_SEAT=")]
            _, name, role = mark.partition("=")[2].split(":")[:3]
            found.setdefault(name if role == "module" else f"{name} {role}", pid)
    with suppress(OSError, ValueError):
        found["control"] = int((shop.paths.state / "lock").read_text())
    return found
