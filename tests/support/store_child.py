"""A process that writes changes into a journal until it is killed, and says on standard output what it was told.

`python -m tests.support.store_child DIRECTORY KEYS SEED DIE`: each line is one acknowledgement, `<kind> <index>`,
written only after the journal has acknowledged. Several tasks write at once, so that transactions hold several
calls. DIE is empty, or `<n>:<moment>`: kill yourself at that moment of the n-th head.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from idi.parts.store import files
from idi.parts.store.interface import Actor, Step, Store
from idi.parts.store.sqlite import open_store, writer

ACTOR = Actor("peer", "child", os.getuid(), os.getpid())


def say(kind: str, index: int) -> None:
    """One write for one line: a line is whole or not there."""
    os.write(1, f"{kind} {index}\n".encode())


async def write(store: Store, rng: random.Random) -> None:
    """Whole changes, one after another, for ever."""
    while True:
        size = rng.choice((10, 100, 2000))
        document = rng.randbytes(rng.choice((10, 5000)))
        change = await store.begin(ACTOR, "up", {"text": "x" * size}, documents={"declaration": document})
        say("begin", change)
        steps = await store.intend(
            change, [Step("start", f"module{at}") for at in range(rng.randrange(1, 5))]
        )
        for step in steps:
            say("intent", step)
        for step in steps:
            await store.outcome(step, True, {"pid": rng.randrange(1 << 16)})
            say("outcome", step)
        await store.finish(change, True)
        say("finish", change)
        if rng.random() < 0.2:
            await store.delivered(change)


def die_at(count: int, moment: str) -> None:
    """Put a kill -9 into the writing of the n-th head."""
    left = count
    honest_write, honest_rename = files.write_whole, os.rename

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_whole(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0 and moment == "before the head":
            kill()
        honest_write(path, data)

    def rename(source: Path, target: Path) -> None:
        if left == 0 and moment == "before its rename":
            kill()
        honest_rename(source, target)
        if left == 0 and moment == "after its rename":
            kill()

    setattr(writer, "write_whole", write_whole)  # noqa: B010
    setattr(os, "rename", rename)  # noqa: B010


async def main() -> None:
    directory, keys, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if sys.argv[4]:
        count, _, moment = sys.argv[4].partition(":")
        die_at(int(count), moment)
    rng = random.Random(seed)
    async with open_store(
        directory, keys, origin="example.com/idi", clock=time.time, reserve_bytes=1 << 16
    ) as store:
        for change in await store.unfinished():
            await store.finish(change.id, False, "interrupted")
            say("finish", change.id)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(write(store, random.Random(rng.random())))


if __name__ == "__main__":
    asyncio.run(main())
