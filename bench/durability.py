"""What it costs that an acknowledged event is on disk: the broker as IDI configures it against what else it could be.

The broker syncs every event before it acknowledges it (`sync_interval: always`). Beside it, in the same run: a broker
with NATS's default, which syncs every two minutes (so that what a crash of the machine can lose is two minutes of
acknowledged events; a crash of the broker alone loses nothing), and a topic in memory (`durable: false`), which loses
everything with the broker. One publisher, events of 1 KB, one after another and 48 at once.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.figure import Figure, Options, Spread, in_turn, main
from idi.parts.bus.interface import Shape, Topic
from idi.parts.bus.nats.bus import NatsBus
from tests.support.buses import NatsStage

SYNCED, DEFAULT = "always", "2m"
BODY = b"x" * 1024
AT_ONCE = (1, 48)


class Stage(NatsStage):
    """A broker with another way of syncing."""

    sync = SYNCED

    def write(self) -> Path:
        file = super().write()
        file.write_text(file.read_text().replace(f'"{SYNCED}"', f'"{self.sync}"'))
        return file


def measure(options: Options) -> Sequence[Figure]:
    return asyncio.run(measured(options.repetitions(4, 10), options.count(300, 2000)))


async def measured(runs: int, events: int) -> list[Figure]:
    figures = []
    async with AsyncExitStack() as stack:
        busses = {}
        for name, sync in (("synced", SYNCED), ("default", DEFAULT)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idi-bench-")))
            broker = Stage(folder)
            broker.sync = sync
            await stack.enter_async_context(broker)
            bus = busses[name] = NatsBus(f"nats://127.0.0.1:{broker.port}", "idi", "idi-password")
            await stack.enter_async_context(bus)
            await bus.shape(Shape({"disk": Topic("disk"), "memory": Topic("memory", durable=False)}))
        for at_once in AT_ONCE:
            rates = await in_turn(
                runs,
                lambda at_once=at_once: rate(busses["synced"], "disk", events, at_once),  # type: ignore[misc]
                lambda at_once=at_once: rate(busses["default"], "disk", events, at_once),  # type: ignore[misc]
                lambda at_once=at_once: rate(busses["synced"], "memory", events, at_once),  # type: ignore[misc]
                progress=f"{at_once} at once",
            )
            synced, default, memory = (Spread.of(side).value for side in zip(*rates, strict=True))
            told = {"events/s": f"synced {synced:.0f}, default {default:.0f}, memory {memory:.0f}"}
            figures += [
                Figure(
                    f"acknowledged events/s, synced to the broker's default, {at_once} at once",
                    Spread.ratios((one[0], one[1]) for one in rates),
                    detail=told,
                ),
                Figure(
                    f"the same to a topic in memory, {at_once} at once",
                    Spread.ratios((one[0], one[2]) for one in rates),
                ),
            ]
    return figures


async def rate(bus: NatsBus, topic: str, events: int, at_once: int) -> float:
    """Acknowledged events a second."""
    started = time.perf_counter()
    numbers = iter(range(events))

    async def publisher() -> None:
        for number in numbers:
            await bus.publish(topic, f"{started}-{number}", {"ce-id": str(number)}, BODY)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(publisher())
    return events / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main("durability", measure))
