"""What a journal does on a disk that is really full: run inside of a mount namespace with a small tmpfs.

`python -m tests.support.full_disk DISK KEYS`: prints one JSON object of what happened; the test judges it.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from idi.parts.errors import PartError, Refused
from idi.parts.store.interface import Actor, Filter, Step, Store
from idi.parts.store.sqlite import open_store
from idi.parts.store.sqlite.check import verify_journal

ADA = Actor("peer", "ada", 1000)


def fill(disk: Path) -> int:
    """The neighbour: take every byte that is left."""
    taken = 0
    handle = os.open(disk / "neighbour", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for size in (1 << 16, 1 << 12, 1):
        try:
            while True:
                taken += os.write(handle, b"x" * size)
        except OSError:
            continue
    os.close(handle)
    return taken


def opening(disk: Path, keys: Path) -> AbstractAsyncContextManager[Store]:
    return open_store(disk / "journal", keys, origin="example.com/idi", clock=time.time)


async def refused(call: Any) -> str:
    try:
        await call
    except Refused as error:
        return str(error)
    return ""


async def stop(store: Store, disk: Path, steps: int) -> int:
    """A `down`, with a neighbour that takes what is given back after each step; returns its entries."""
    before = store.state.size
    change = await store.begin(ADA, "down", {}, relief=True)
    for number in range(steps):
        (step,) = await store.intend(change, [Step("stop", f"module{number}", {"text": "x" * 300})])
        fill(disk)
        await store.outcome(step, True)
    await store.finish(change, True)
    return store.state.size - before


async def run(disk: Path, keys: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with opening(disk, keys) as store:
        change = await store.begin(ADA, "up", {})
        (running,) = await store.intend(change, [Step("start", "jede")])
        found["taken"] = fill(disk)
        for _ in range(5000):
            found["step"] = await refused(store.intend(change, [Step("start", "cam", {"text": "x" * 1000})]))
            if found["step"]:
                break
        found["degraded"] = store.state.degraded
        found["alerts"] = store.state.alerts
        found["forward"] = await refused(store.begin(ADA, "scale", {"jede": 3}))
        await store.outcome(running, True)
        for open_step in (await store.unfinished())[0].steps:
            if open_step.outcome is None:
                await store.outcome(open_step.id, False)
        await store.finish(change, False, "the disk is full")
        found["noted"] = len(await store.entries(only=Filter(action="journal.full"), limit=1000))
        found["down"] = await stop(store, disk, 30)
        found["held"] = (disk / "journal/reserve").stat().st_size
    async with opening(disk, keys) as store:
        found["reopened_degraded"] = store.state.degraded
        found["reopened_forward"] = await refused(store.begin(ADA, "up", {}))
        found["reopened_down"] = await stop(store, disk, 5)
        found["unfinished"] = len(await store.unfinished())
        found["full"] = verify(disk, keys)
        try:
            while True:
                await store.note(ADA, "drift", {"text": "x" * 60_000})
                fill(disk)
        except PartError as error:
            found["exhausted"] = str(error)
        found["size"] = store.state.size
        found["still_readable"] = (await store.entries(newest=True, limit=1))[0].index
    (disk / "neighbour").unlink()
    async with opening(disk, keys) as store:
        found["survived"] = store.state.size
        fill_again = await store.begin(ADA, "up", {})
        await store.finish(fill_again, True)
        found["room"] = [
            one.detail for one in await store.entries(only=Filter(action="journal.room"), limit=1000)
        ]
        found["room_degraded"] = store.state.degraded
        found["refilled"] = (disk / "journal/reserve").stat().st_size
    found["after"] = verify(disk, keys)
    return found


def verify(disk: Path, keys: Path) -> list[str]:
    return [one.text for one in verify_journal(disk / "journal", key_dir=keys).findings]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))))
