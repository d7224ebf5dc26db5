"""Events under seeded faults: whatever a publisher was told is kept is handled, or lies in the dead letters.

Publishers (over HTTP and with a native client) write down what they were told; a handler and a consumer write down
what came to them before they answer. Meanwhile broker, relay, handlers, their sidecars and control are killed, one is
paused for a while, and the disk of the broker is filled to the last block and freed again, kills going on. At the end
the history is held together: an acknowledged event that reached a side neither alive nor dead is lost, and none may be.
What was not acknowledged may come or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nats.errors
import pytest
from nats.aio.client import Client

from tests.support import small_disk
from tests.support.event_shop import DECLARATION, EVENTFUL, letters, urls
from tests.support.platform import Platform, alive, platform, until
from tests.support.scale import need_part, scale
from tests.support.steady import figure

pytestmark = pytest.mark.requirement("B1", "T3")

EVENTS = scale(3_000, 200_000)
RATE = scale(75.0, 200.0)
"""Of each of the two publishers, events a second."""

AT_ONCE = 32
BATCH = 10
TRIES = 300
KILLS_EVERY_S = (1.0, 3.0)
FULL_S = (4.0, 8.0)
"""How long the disk stays full: other kills fall into it."""

DISK = f"{scale(64, 768)}m"
SEATS = (
    "bus-1",
    "relay-1",
    "mail-1",
    "stock-1",
    "mail-1 sidecar",
    "bus-1 sidecar",
    "relay-1 sidecar",
    "control",
)
FAULTS = (*SEATS, "a pause of mail-1", "a full disk")


@dataclass
class History:
    """What publishers were told, by id."""

    kept: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    said: set[str] = field(default_factory=set)
    """What `idi status` warned of while the disk was full."""


@dataclass
class Heard:
    """What came to one module: its file is read on from where it was read to."""

    path: Path
    ids: set[str] = field(default_factory=set)
    repeated: int = 0
    _read: int = 0

    def look(self) -> set[str]:
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    # A handler that was killed in the middle of a line left it open: it is no word of it.
                    with suppress(ValueError):
                        id = json.loads(line)[1]
                        self.repeated += id in self.ids
                        self.ids.add(id)
        return self.ids


@dataclass
class Shop:
    platform: Platform
    disk: small_disk.Namespace
    heard: dict[str, Heard]
    """mail is posted to, and the relay counts; stock takes from the broker, which counts."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    need_part("a mount namespace", small_disk.possible(), "run as root where namespaces can be made")
    declared = DECLARATION.replace("attempts: 3", "attempts: 12")
    with small_disk.holder() as pid, platform(declared, {"eventful.py": EVENTFUL}) as one:
        disk = small_disk.broker_disk(pid, one, DISK)
        one.up()
        heard = {module: Heard(one.folder / f"heard-{module}") for module in ("mail", "stock")}
        yield Shop(one, disk, heard)


@pytest.mark.timeout(3600)
async def test_no_acknowledged_event_is_lost(shop: Shop, seeded: random.Random) -> None:
    history = History()
    done = asyncio.Event()
    one = shop.platform
    async with asyncio.TaskGroup() as tasks:
        faults = tasks.create_task(disturb(shop, seeded, history, done))
        half = EVENTS // 2
        began = time.monotonic()
        async with asyncio.TaskGroup() as publishers:
            publishers.create_task(publish_by_http(one, history, half))
            publishers.create_task(publish_natively(one, history, EVENTS - half))
        published_s = time.monotonic() - began
        done.set()
        await faults
    await asyncio.to_thread(one.up)
    await asyncio.to_thread(one.wait_ready)
    lost = await asyncio.to_thread(settle, shop, history)
    figure(
        "events under faults",
        published=EVENTS,
        within_s=round(published_s),
        acknowledged=len(history.kept),
        refused=dict(history.refused),
        lost={side: len(ids) for side, ids in lost.items()},
        faults=dict(history.faults),
        repeated={side: heard.repeated for side, heard in shop.heard.items()},
    )
    assert not any(lost.values()), {side: sorted(ids)[:5] for side, ids in lost.items()}
    assert len(history.kept) > EVENTS * 0.9, "what was refused is sent again until it is taken"
    assert history.faults["a full disk"]
    assert any("no space left" in warning and "nothing is lost" in warning for warning in history.said)
    assert await asyncio.to_thread(one.audit)


def settle(shop: Shop, history: History) -> dict[str, set[str]]:
    """What of the acknowledged is still missing on each side when nothing comes any more."""
    missing = dict.fromkeys(shop.heard, history.kept)

    def all_there() -> bool:
        for side, heard in shop.heard.items():
            missing[side] = history.kept - heard.look()
        if any(missing.values()) and sum(map(len, missing.values())) < 10_000:
            for letter in letters(shop.platform):
                if letter["event"]:
                    missing[letter["module"]] = missing[letter["module"]] - {letter["event"]["id"]}
        return not any(missing.values())

    with suppress(AssertionError):
        until(all_there, scale(120.0, 900.0), every_s=1.0)
    return missing


def document(id: str) -> dict[str, object]:
    return {"specversion": "1.0", "id": id, "source": "/history", "type": "order.placed", "data": {"id": id}}


async def publish_by_http(shop: Platform, history: History, count: int) -> None:
    """In batches, each sent again (same ids) as often as it takes; given up only after many tries."""
    url = (await asyncio.to_thread(urls, shop, "orders"))["EVENTS_URL"]
    room = asyncio.Semaphore(AT_ONCE)
    headers = {"content-type": "application/cloudevents-batch+json"}

    async def one(client: httpx.AsyncClient, ids: list[str]) -> None:
        try:
            for _ in range(TRIES):
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
            for _ in range(TRIES):
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


async def disturb(shop: Shop, chance: random.Random, history: History, done: asyncio.Event) -> None:
    """One fault after another, in rounds of another order each, until everything is published."""
    waiting = ["relay-1", "bus-1", "a full disk"]
    async with asyncio.TaskGroup() as tasks:
        full = tasks.create_task(asyncio.sleep(0))
        while not done.is_set():
            waiting = waiting or chance.sample(FAULTS, len(FAULTS))
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), chance.uniform(*KILLS_EVERY_S))
            fault = waiting.pop()
            if fault == "a full disk":
                await full
                full = tasks.create_task(fill_disk(shop, history, chance.uniform(*FULL_S)))
                continue
            pids = await asyncio.to_thread(seats, shop.platform)
            pid = pids.get("mail-1" if fault == "a pause of mail-1" else fault, 0)
            if not pid or not alive(pid):
                continue
            history.faults[fault] += 1
            await strike(shop.platform, fault, pid)


async def strike(one: Platform, fault: str, pid: int) -> None:
    with suppress(ProcessLookupError):
        if fault == "a pause of mail-1":
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(1.0)
            os.kill(pid, signal.SIGCONT)
        else:
            os.kill(pid, signal.SIGKILL)
    if fault == "control":
        await asyncio.to_thread(one.up, check=False)


async def fill_disk(shop: Shop, history: History, for_s: float) -> None:
    """Nobody but the disk is touched: that it goes on afterwards is the platform's own doing."""
    history.faults["a full disk"] += 1
    end = time.monotonic() + for_s
    while time.monotonic() < end:  # a broker that starts anew gives some of its own back
        await asyncio.to_thread(shop.disk.fill)
        await asyncio.sleep(0.5)
        told = await asyncio.to_thread(shop.platform.run, "status", "--json", check=False)
        if told.returncode == 0:
            history.said.update(json.loads(told.stdout)["warnings"])
    await asyncio.to_thread(shop.disk.make_room)


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
