"""What events cost on a real platform: publishing through the relay against a broker's client, and how soon they are
handed over.

Publishing, all acknowledged from disk, 1 KB of data, alternating blocks:

    relay    publisher -> its sidecar -> the relay's -> relay -> its sidecar -> the broker's -> broker   (EVENTS_URL)
    native   publisher -> its sidecar -> the broker's -> broker                                          (BUS_URL)
    bare     publisher -> a broker of its own with the same settings

The publisher is the same cheap program for all (`event_load`, its own cost is told), so what is compared is the way and
not a client library. Nobody takes what it publishes.

Delivery: published at a fixed rate whatever becomes of it (open loop), so a stall is not left out; latency counts
from when an event was due, and from when its publishing was answered. By HTTP on both ends, and by the broker's own
client on both. Everything shares the cores: beside each rate stands the processor time for an event, by process, which
says more on a busy machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats

from bench.event_load import DATA, Done, Plan
from bench.figure import ROOT, Figure, Options, Spread, cpu_seconds, in_turn, main
from idi.parts.bus.interface import Shape, Topic
from idi.parts.bus.nats.bus import NatsBus
from tests.support.buses import NatsStage
from tests.support.load import start_load
from tests.support.load_plan import LoadPlan, nearest_rank
from tests.support.load_timer import Alarm
from tests.support.platform import Platform, platform

KEPT, HANDLED, CONSUMED = "bench.kept", "bench.handled", "bench.consumed"
DECLARATION = f"""
platform: bench
modules:
  maker: {{run: exec python event_module.py, publishes: [{KEPT}, {HANDLED}, {CONSUMED}]}}
  handler: {{run: exec python event_module.py, handles: {{{HANDLED}: /take}}}}
  taker: {{run: exec python event_module.py, consumes: [{CONSUMED}], config: {{CONSUMES: {CONSUMED}}}}}
"""
AT_ONCE = 48
BATCH = 50
RATE = 100.0
WAYS = ("relay", "native", "bare")
RUN = itertools.count()


@dataclass(frozen=True)
class Run:
    """Events a second, and what one cost each process in microseconds."""

    rate: float
    cpu: Mapping[str, float]

    @property
    def total(self) -> float:
        """Without the publisher."""
        return sum(used for name, used in self.cpu.items() if name != "publisher")


@dataclass(frozen=True)
class Latency:
    """Seconds from when each event was due, and from when its publishing was answered."""

    due: Sequence[float]
    answered: Sequence[float]
    slip: float


def measure(options: Options) -> Sequence[Figure]:
    files = {"event_module.py": (ROOT / "bench" / "event_module.py").read_text()}
    with platform(DECLARATION, files) as one:
        one.up()
        one.wait_ready()
        return asyncio.run(measured(one, options))


async def measured(one: Platform, options: Options) -> list[Figure]:
    runs, seconds = options.repetitions(3, 8), options.count(2, 4)
    maker = urls(one, "maker")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idi-bench-")))
        bare = await stack.enter_async_context(NatsStage(folder))
        async with NatsBus(f"nats://127.0.0.1:{bare.port}", "idi", "idi-password") as bus:
            await bus.shape(Shape({KEPT: Topic(KEPT)}))
        assert bare.process is not None
        # A part and its instance are one process.
        named = {pid: name for name, pid in reversed(one.pids().items())} | {bare.process.pid: "bare broker"}
        pids = {name: pid for pid, name in named.items()}
        addresses = {
            "relay": maker["EVENTS_URL"],
            "native": maker["BUS_URL"],
            "bare": f"nats://idi:idi-password@127.0.0.1:{bare.port}",
        }

        async def publish(way: str, at_once: int, for_s: float, events: int = 1) -> Run:
            plan = Plan(addresses[way], KEPT, f"r{next(RUN):x}t{time.time_ns():x}", at_once, for_s, events)
            return await published(plan, pids)

        for way in WAYS:
            await publish(way, AT_ONCE, 0.5)
        found = []
        for at_once in (1, AT_ONCE):
            blocks = await in_turn(
                runs,
                *(lambda way=way, at_once=at_once: publish(way, at_once, seconds) for way in WAYS),
                progress=f"{at_once} at once",
            )
            found += publishing(blocks, at_once, generator=at_once > 1)
        batches = await in_turn(
            runs,
            lambda: publish("relay", 4, seconds, BATCH),
            lambda: publish("native", AT_ONCE, seconds),
            progress="batches",
        )
        found.append(
            Figure(
                f"in batches of {BATCH}, 4 at once, relay to native with {AT_ONCE} at once",
                Spread.ratios((ours.rate, other.rate) for ours, other in batches),
                detail={"events/s": told_rates(batches, ("relay", "native"))}
                | costs(batches, ("relay", "native")),
            )
        )
    latencies = await in_turn(
        runs,
        lambda: by_http(one, maker, seconds * 2),
        lambda: by_client(one, maker, seconds * 2),
        progress="delivery",
    )
    return found + delivery(latencies)


# --- publishing ------------------------------------------------------------------------------------------


async def published(plan: Plan, pids: Mapping[str, int]) -> Run:
    before = {name: cpu_seconds([pid]) for name, pid in pids.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.event_load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps(asdict(plan)).encode())
    if process.returncode != 0:
        raise RuntimeError(f"the publisher ended with {process.returncode}")
    done = Done(**json.loads(said))
    used = {name: (cpu_seconds([pid]) - before[name]) * 1e6 / done.events for name, pid in pids.items()}
    return Run(done.rate, {"publisher": done.cpu_us} | used)


def publishing(blocks: Sequence[Sequence[Run]], at_once: int, generator: bool) -> list[Figure]:
    relay, native, bare = zip(*blocks, strict=True)
    how = {"events/s": told_rates(blocks, WAYS)} | costs(blocks, WAYS)
    return [
        Figure(
            f"kept events/s, relay to native, {at_once} at once",
            Spread.ratios((a.rate, b.rate) for a, b in zip(relay, native, strict=True)),
            at_least=0.5,
            detail=how,
        ),
        Figure(
            "the same by processor time",
            Spread.ratios((b.total, a.total) for a, b in zip(relay, native, strict=True)),
        ),
        Figure(
            f"kept events/s, native to a bare broker, {at_once} at once",
            Spread.ratios((a.rate, b.rate) for a, b in zip(native, bare, strict=True)),
            at_least=0.9,
        ),
    ]


def told_rates(blocks: Sequence[Sequence[Run]], ways: Sequence[str]) -> str:
    sides = zip(ways, zip(*blocks, strict=True), strict=True)
    return ", ".join(f"{way} {Spread.of(one.rate for one in side).value:.0f}" for way, side in sides)


def costs(blocks: Sequence[Sequence[Run]], ways: Sequence[str]) -> dict[str, str]:
    """Of each way the processes that have a part in it."""
    found = {}
    for way, side in zip(ways, zip(*blocks, strict=True), strict=True):
        each = {name: Spread.of(one.cpu[name] for one in side).value for name in side[0].cpu}
        told = ", ".join(f"{name} {used:.0f}" for name, used in each.items() if used >= 5)
        found[f"{way}, us of processor time an event"] = told
    return found


# --- delivery --------------------------------------------------------------------------------------------


async def by_http(one: Platform, maker: Mapping[str, str], seconds: float) -> Latency:
    url, count = urlsplit(maker["EVENTS_URL"]), round(RATE * seconds)
    run = f"h{next(RUN)}t{time.time_ns():x}"
    form = {"ce-specversion": "1.0", "ce-source": "/bench", "ce-type": HANDLED, "content-type": "text/plain"}
    due: dict[str, float] = {}
    answered: dict[str, float] = {}

    def kept(offset: float, *_: object) -> None:
        id, now = f"{run}-{round(offset * RATE)}", time.monotonic()
        due[id], answered[id] = now - load.result.latencies[-1], now

    plan = LoadPlan(
        *("127.0.0.1", url.port or 0, url.path),
        rate=RATE,
        seconds=seconds,
        headers=[{**form, "ce-id": f"{run}-{number}"} for number in range(count)],
        method="POST",
        body=DATA.encode(),
        connections=16,
        warm=16,
        on_reply=kept,
    )
    async with start_load(plan) as load:
        result = await load.wait()
    if result.failed:
        raise RuntimeError(f"{result.failed} were not kept: {result.failures[:2]}")
    return latency(await received(one, "handler", count), due, answered, result.slip_p99)


async def by_client(one: Platform, maker: Mapping[str, str], seconds: float) -> Latency:
    count, run = round(RATE * seconds), f"n{next(RUN)}t{time.time_ns():x}"
    bus = await nats.connect(maker["BUS_URL"])
    stream = bus.jetstream()
    due: dict[str, float] = {}
    answered: dict[str, float] = {}
    slips: list[float] = []
    form = {"ce-specversion": "1.0", "ce-source": "/bench", "ce-type": CONSUMED}

    async def publish(id: str) -> None:
        await stream.publish(CONSUMED, DATA.encode(), headers={**form, "ce-id": id, "Nats-Msg-Id": id})
        answered[id] = time.monotonic()

    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:

        def tick() -> None:
            while len(due) < count:
                at = start + len(due) / RATE
                if at > (now := time.monotonic()):
                    alarm.at(at)
                    return
                slips.append(now - at)
                id = f"{run}-{len(due)}"
                due[id] = at
                tasks.create_task(publish(id))
            over.set()

        alarm, start = Alarm(tick), time.monotonic() + 0.01
        alarm.at(start)
        await over.wait()
        alarm.close()
    await bus.close()
    return latency(await received(one, "taker", count), due, answered, nearest_rank(sorted(slips), 0.99))


async def received(one: Platform, module: str, count: int) -> dict[str, float]:
    """All of them: what comes late counts."""
    found: dict[str, float] = {}
    async with asyncio.timeout(60):
        while True:
            found |= ask(one, module, "/received")
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


def latency(
    came: Mapping[str, float], due: Mapping[str, float], answered: Mapping[str, float], slip: float
) -> Latency:
    return Latency(
        sorted(came[id] - at for id, at in due.items()),
        sorted(came[id] - at for id, at in answered.items()),
        slip,
    )


def delivery(blocks: Sequence[Sequence[Latency]]) -> list[Figure]:
    http, client = zip(*blocks, strict=True)
    found = []
    for way, side in (("HTTP on both ends", http), ("the broker's client on both ends", client)):
        for share in (0.5, 0.99):
            due = Spread.of(nearest_rank(one.due, share) * 1e3 for one in side)
            answered = Spread.of(nearest_rank(one.answered, share) * 1e3 for one in side)
            slip = max(one.slip for one in side) * 1e3
            found.append(
                Figure(
                    f"from published to received, {way}, p{share * 100:.0f}",
                    due,
                    "ms",
                    detail={
                        "from when publishing was answered": f"{answered.value:.2f} ms "
                        f"({answered.low:.2f} to {answered.high:.2f})",
                        "how": f"{RATE:g} events/s; the generator was at most {slip:.2f} ms late (p99 of a run)",
                    },
                )
            )
    return found


def urls(one: Platform, module: str) -> dict[str, str]:
    found: dict[str, str] = ask(one, module, "/urls")
    return found


ADDRESSES: dict[str, str] = {}


def ask(one: Platform, module: str, path: str) -> dict[str, Any]:
    if module not in ADDRESSES:
        [instance] = one.instances(module)
        ADDRESSES[module] = instance["address"]
    with urllib.request.urlopen(f"http://{ADDRESSES[module]}{path}", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    sys.exit(main("events", measure))
