"""How fast a change reaches the last proxy, and what it costs control.

The change: the one ready instance of a module gives way to another. It is told to control's loop as a fact, as a
probe or a dead process tells it; that process does what control does and nothing else. Three sizes:

- 14 real sidecars (two of the called module, twelve callers): until all have acknowledged; and, in other rounds,
  until every caller's requests really arrive at the other instance. Each caller is asked every few milliseconds
  meanwhile, and the time includes the new connection with mutual TLS that its first such request needs (twelve of
  them at once, on this machine), and the answer.
- 100 and 1,000 simulated sidecars, streams of their own on connections of their own (bench/subscribers.py): until the
  last of them has the change, and until all have acknowledged.

Control has one core to itself among the simulated ones, which share the other; real proxies and whoever asks them run
where the system puts them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.asker import Asker
from bench.control_child import credential
from bench.figure import ROOT, Figure, Options, Spread, main, pinned, placing, say
from bench.static_envoy import answering, envoy
from idi.parts.gateway.envoy.start import sidecar_start
from tests.support.envoy import Mesh, free_port

CONTROL_CORE, CROWD_CORE = 0, 1
CALLERS = 12
PAUSE_S = 0.02
BATCHES = 4
PROCESSES = 2
READY_S = 60.0
NAMES = ("one", "two")


@dataclass
class Child:
    """A process that is asked a line for a line."""

    process: asyncio.subprocess.Process

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), READY_S)
        if not line:
            raise RuntimeError("a process of this measurement ended")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        await self.process.stdin.drain()
        return await self.hear()


@asynccontextmanager
async def child(core: int, *argv: str) -> AsyncIterator[Child]:
    with pinned(core):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *argv),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
        )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Series:
    """What was seen of one size; all times in ms, one per change."""

    pushed: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    routed: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0
    view_ms: float = 0.0
    pss: float = 0.0
    rss: float = 0.0

    def cost(self) -> dict[str, object]:
        return {
            "control": f"{self.cpu_ms:.1f} ms CPU a change; {self.pss:.0f} MB PSS, {self.rss:.0f} MB RSS",
            "the whole view again": f"{self.view_ms:.1f} ms (after a birth or a new declaration)",
        }


def measure(options: Options) -> Sequence[Figure]:
    few = options.repetitions(60, 240)
    many = options.repetitions(20, 100)
    real = asyncio.run(measure_real(few))
    hundred = asyncio.run(measure_simulated(100, few))
    thousand = asyncio.run(measure_simulated(1000, many))
    p50, p99 = 0.5, 0.99
    last = "change to the last of"
    ratio = Spread.ratios(zip(batches(thousand.received, p50), batches(hundred.received, p50), strict=True))
    return [
        figure(f"{last} 14 sidecars' acknowledgement", real.acknowledged, p50),
        figure(f"{last} 14 sidecars' acknowledgement", real.acknowledged, p99, 50.0, 20.0, real.cost()),
        figure("change to all 12 callers really routing", real.routed, p50),
        figure("change to all 12 callers really routing", real.routed, p99, 50.0, 20.0),
        figure(f"{last} 100 simulated sidecars", hundred.received, p50),
        figure(f"{last} 100 simulated sidecars", hundred.received, p99, detail=hundred.cost()),
        figure(f"{last} 1,000 simulated sidecars", thousand.received, p50),
        figure(f"{last} 1,000 simulated sidecars", thousand.received, p99, 250.0, 100.0, thousand.cost()),
        figure("the same, to the last acknowledgement", thousand.acknowledged, p50),
        figure("the same, to the last acknowledgement", thousand.acknowledged, p99),
        Figure("1,000 to 100 simulated sidecars", ratio, at_most=10.0, detail={"how": placing()}),
    ]


def figure(
    what: str,
    values: Sequence[float],
    share: float,
    at_most: float | None = None,
    stretch: float | None = None,
    detail: dict[str, object] | None = None,
) -> Figure:
    """A percentile of all changes; its noise is that of the batches."""
    parts = batches(values, share)
    spread = Spread(percentile(values, share), min(parts), max(parts), len(parts))
    name = f"{what}, p{share * 100:g} of {len(values)}"
    return Figure(name, spread, "ms", at_most=at_most, stretch=stretch, detail=detail or {})


def batches(values: Sequence[float], share: float) -> list[float]:
    size = max(1, len(values) // BATCHES)
    return [percentile(values[at : at + size], share) for at in range(0, size * BATCHES, size)]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# --- real sidecars ---------------------------------------------------------------------------------------


async def measure_real(events: int) -> Series:
    with folder() as runtime:
        async with AsyncExitStack() as stack:
            order = places(runtime, CALLERS)
            order["certificates"] = True
            for target, name in zip(order["targets"], NAMES, strict=True):
                stack.enter_context(envoy(runtime, target["app"], answering(target["app"], name)))
            control = await stack.enter_async_context(child(CONTROL_CORE, "bench.control_child"))
            await control.ask(order)
            nodes = [*(f"target-{n + 1}" for n in range(2)), *(f"caller-{n + 1}" for n in range(CALLERS))]
            stack.enter_context(sidecars(runtime, Path(order["socket"]), nodes))
            await all_connected(control, len(nodes))
            series, _ = await flips(control, "14 sidecars", events, CALLERS)
            asker = await stack.enter_async_context(Asker([each["outbound"] for each in order["callers"]]))
            ready = (await control.ask({"do": "flip"}))["ready"]
            await asker.until(NAMES[ready].encode())
            for event in range(events):
                progress("14 sidecars, routing", event, events)
                ready = 1 - ready
                series.routed.append(await routed(control, asker, NAMES[ready]))
                await asyncio.sleep(PAUSE_S)
            return series


async def routed(control: Child, asker: Asker, name: str) -> float:
    """They are asked from before the change on."""
    async with asyncio.TaskGroup() as tasks:
        routing = tasks.create_task(asker.until(name.encode()))
        await asyncio.sleep(PAUSE_S / 4)
        done = await control.ask({"do": "flip"})
    return float(routing.result() - done["begun"]) * 1000


@contextmanager
def sidecars(runtime: Path, socket: Path, nodes: Sequence[str]) -> Iterator[None]:
    launcher = Mesh(runtime)
    try:
        for node in nodes:
            launcher.launch(node, sidecar_start(node, credential(node), runtime, socket))
        yield
    finally:
        launcher.stop()


async def all_connected(control: Child, count: int) -> None:
    for _ in range(int(READY_S / 0.05)):
        if (await control.ask({"do": "facts"}))["nodes"] == count:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the {count} sidecars were not ready within {READY_S:g} s")


# --- simulated sidecars ----------------------------------------------------------------------------------


async def measure_simulated(count: int, events: int) -> Series:
    with folder() as runtime:
        async with AsyncExitStack() as stack:
            order = places(runtime, count)
            control = await stack.enter_async_context(child(CONTROL_CORE, "bench.control_child"))
            await control.ask(order)
            share = count // PROCESSES
            crowds = []
            for part in range(PROCESSES):
                argv = ("bench.subscribers", order["socket"], str(1 + part * share), str(share))
                crowds.append(await stack.enter_async_context(child(CROWD_CORE, *argv)))
            for crowd in crowds:
                await crowd.hear()
            series, changes = await flips(control, f"{count} simulated", events, count)
            times = [await crowd.ask({}) for crowd in crowds]
            for change in changes:
                number = change["number"]
                got = sum(each["count"].get(number, 0) for each in times)
                if got != count:
                    raise RuntimeError(f"change {number} came to {got} of {count}")
                last = max(each["last"][number] for each in times)
                series.received.append((last - change["begun"]) * 1000)
            return series


# --- both ------------------------------------------------------------------------------------------------


async def flips(control: Child, name: str, events: int, count: int) -> tuple[Series, list[dict[str, Any]]]:
    """So many changes, one after the other was acknowledged and a pause."""
    await control.ask({"do": "flip"})
    series, changes = Series(), []
    before = (await control.ask({"do": "facts"}))["cpu"]
    for event in range(events):
        progress(name, event, events)
        change = await control.ask({"do": "flip"})
        if change["lost"] or change["by"] < count:
            raise RuntimeError(f"{change['by']} of {count} have acknowledged, {change['lost']} are lost")
        changes.append(change)
        series.acknowledged.append((change["acknowledged"] - change["begun"]) * 1000)
        series.pushed.append((change["pushed"] - change["begun"]) * 1000)
        await asyncio.sleep(PAUSE_S)
    facts = await control.ask({"do": "facts"})
    series.cpu_ms = (facts["cpu"] - before) * 1000 / events
    series.pss, series.rss = facts["pss"], facts["rss"]
    series.view_ms = (await control.ask({"do": "view"}))["seconds"] * 1000
    return series, changes


def places(runtime: Path, callers: int) -> dict[str, Any]:
    """The order for control: its socket, and the ports of every instance. Simulated ones never listen."""
    real = callers == CALLERS

    def port() -> int:
        return free_port() if real else 1

    return {
        "socket": str(runtime / "xds"),
        "gateway": free_port(),
        "certificates": False,
        "targets": [{"app": free_port(), "mesh": free_port()} for _ in NAMES],
        "callers": [{"app": port(), "mesh": port(), "outbound": port()} for _ in range(callers)],
    }


@contextmanager
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="idi-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def progress(name: str, event: int, events: int) -> None:
    if event % max(1, events // 4) == 0:
        say(f"{name}: change {event + 1}/{events}")


if __name__ == "__main__":
    sys.exit(main("propagation", measure))
