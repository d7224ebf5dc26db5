"""Control killed at every step of every change: the next start always converges.

Control runs on the simulators of its parts (each passes the contract of the real one). The journal
crashes before or after its n-th write, which is every boundary there is: before an intent, between intent
and effect, between effect and outcome, before the end. What outlives control (processes, the journal's
durable part) is kept, a new control starts on it, and the world must come to what was asked for last.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from idi.api.paths import paths_for
from idi.api.types import ChangeRequest, Progress
from idi.control.apply import Executor
from idi.control.desk import CONTROL, Desk
from idi.control.events import Events
from idi.control.figures import Figures, Reading
from idi.control.loop import Edge, Loop
from idi.control.registrations import Registrations
from idi.control.settings import Settings
from idi.control.tasks import owned_tasks
from idi.declaration.types import Platform
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus
from idi.parts.clients.machine import Peer
from idi.parts.discovery.registry import Registry
from idi.parts.errors import PartError, Refused
from idi.parts.gateway.interface import BarrierResult, Rejection
from idi.parts.store.memory import Crash, MemoryStore
from idi.parts.targets.simulator import Machine, SimulatedTarget
from idi.plan.difference import difference
from idi.traffic.types import EmbeddedKeys
from idi.world.events import PartChanged
from idi.world.invariants import validate
from idi.world.types import Instance, InstanceId, RevisionSpec
from tests.support.planes import RememberingPlane
from tests.support.scale import scale

PEER = Peer(1, 0, 0)
KEYS = EmbeddedKeys("http://127.0.0.1:8080", "shop", "{}", "/run/issuer")
FILE = Path(tempfile.gettempdir()) / "no-such-shop" / "platform.yaml"


def declaration(jede: int, level: str, storage: bool = True) -> str:
    kept = "\n    storage: {size: 1GiB}" if storage else ""
    return f"""
platform: shop
modules:
  jede:
    run: serve
    instances: {jede}
    calls: [cam]
    config: {{LEVEL: {level}}}
  cam:
    run: serve
    instances: 2
  sfl:
    run: serve{kept}
    config: {{LEVEL: {level}}}
"""


class NoTokens:
    def mint(self, subject: str, scopes: object, life_s: float) -> object:
        raise AssertionError

    def mint_as(self, client: str, scopes: object, life_s: float) -> object:
        raise AssertionError

    def new_secret(self, client: str) -> str:
        raise AssertionError


async def same(platform: Platform) -> Platform:
    return platform


def no_broker() -> AbstractAsyncContextManager[Bus]:
    raise BusDown("There is no broker.")


async def no_figures(node: str) -> Reading:
    raise AssertionError(node)


class NothingAttached:
    async def attach(self, spec: RevisionSpec, port: int) -> Instance:
        raise AssertionError(spec)

    async def detach(self, instance: InstanceId) -> None:
        raise AssertionError(instance)

    def attached(self) -> list[InstanceId]:
        return []


@dataclass
class Outside:
    """What outlives control."""

    store: MemoryStore = field(default_factory=MemoryStore)
    machine: Machine = field(default_factory=Machine)
    parts: set[str] = field(default_factory=set)


@dataclass
class Life:
    """One life of control: `desk` and its world, until it ends or crashes."""

    outside: Outside
    desk: Desk | None = None

    async def run(self, work: Callable[[Desk], Awaitable[None]]) -> bool:
        """True when it crashed."""
        crashed = False
        try:
            await self._run(work)
        except* Crash:
            crashed = True
        return crashed

    async def _run(self, work: Callable[[Desk], Awaitable[None]]) -> None:
        outside = self.outside
        plane = RememberingPlane()
        loop = Loop(plane, Edge("127.0.0.1", 8080, lambda platform: KEYS))

        async def retire(instance: Instance) -> None:
            await plane.barrier(1.0)

        async def start_part(name: str) -> None:
            outside.parts.add(name)
            loop.emit(PartChanged(name, "ready", 1.0, 7))

        async def stop_part(name: str) -> None:
            outside.parts.discard(name)
            loop.emit(PartChanged(name, "absent", 1.0))

        target = SimulatedTarget(loop.emit, retire, machine=outside.machine)
        registrations = Registrations(Registry(b"key", lambda: 0.0), NothingAttached(), outside.store)
        async with target, owned_tasks() as tasks:
            desk = Desk(
                settings=Settings(paths_for(FILE, "dev"), "dev", str(FILE.parent)),
                store=outside.store,
                loop=loop,
                plane=plane,
                executor=Executor(loop, target, start_part, stop_part, registrations.dismiss),
                tasks=tasks,
                warnings=list,
                figures=Figures(no_figures),
                adopt_platform=lambda platform: None,
                check=lambda: None,
                resolve=same,
                tokens=NoTokens(),  # type: ignore[arg-type]
                registrations=registrations,
                events=Events(no_broker, outside.store),
            )
            self.desk = desk
            await desk.recall()
            await target.adopt()
            for name in sorted(outside.parts):
                await start_part(name)
            await work(desk)
            validate(loop.world)


async def ask(desk: Desk, request: ChangeRequest) -> list[Progress]:
    return [item async for item in await desk.change(request, PEER)]


def up(text: str) -> ChangeRequest:
    return {"action": "up", "text": text, "file": "platform.yaml"}


def some_requests(rng: random.Random) -> list[ChangeRequest]:
    """A few changes; the first one brings the platform up."""
    requests: list[ChangeRequest] = [up(declaration(rng.randint(0, 4), "info"))]
    for _ in range(rng.randint(1, 4)):
        possible: list[ChangeRequest] = [
            up(declaration(rng.randint(0, 4), rng.choice(["info", "debug"]))),
            up(declaration(2, "info", storage=rng.random() < 0.5)),
            {"action": "scale", "modules": {"cam": rng.randint(0, 5), "jede": rng.randint(0, 5)}},
            {"action": "restart", "modules": [rng.choice(["cam", "jede", "sfl"])]},
            {"action": "down"},
        ]
        requests.append(rng.choice(possible))
        if requests[-1]["action"] == "down":
            break
    return requests


async def one_history(seed: int) -> None:
    rng = random.Random(seed)
    outside = Outside()
    requests = some_requests(rng)
    done = 0

    async def work(desk: Desk) -> None:
        nonlocal done
        while done < len(requests):
            last = (await ask(desk, requests[done]))[-1]
            assert last["type"] == "done"
            assert last.get("ok"), (seed, last)
            done += 1

    crashes = 0
    while True:
        if crashes < 6:
            outside.store.crash_after(rng.randint(0, 12), rng.choice(["before", "after"]))
        life = Life(outside)
        crashed = await life.run(work)
        outside.store.restart()
        if not crashed:
            break
        crashes += 1
    desk = life.desk
    assert desk is not None
    # Asked again, the last request changes nothing but what it names; the world is what is wanted.
    assert difference(desk.desired(), desk.loop.world).empty(), seed
    if requests[-1]["action"] == "down":
        assert not outside.machine.instances, seed
        assert not outside.parts, seed
    else:
        wanted = {name: module.count for name, module in desk.desired().modules.items()}
        have = dict.fromkeys(wanted, 0)
        for instance in outside.machine.instances.values():
            have[instance.module] += 1
        assert have == wanted, seed
    assert await outside.store.unfinished() == [], seed
    report = outside.store.verify()
    assert not report.findings, (seed, report.findings)


@pytest.mark.requirement("S5", "R1")
async def test_killed_at_any_step_control_converges(seeded: random.Random) -> None:
    for _ in range(scale(60, 600)):
        seed = seeded.randrange(1 << 32)
        async with asyncio.timeout(20):
            await one_history(seed)


@pytest.mark.requirement("S5")
async def test_a_second_up_changes_nothing_and_writes_nothing() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(2, "info")))
        size = desk.store.state.size
        again = await ask(desk, up(declaration(2, "info")))
        assert again[-1].get("ok")
        assert desk.store.state.size == size

    assert not await Life(outside).run(work)


async def test_an_unknown_module_is_refused_with_the_nearest_name() -> None:
    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(2, "info")))
        with pytest.raises(Refused, match="Did you mean 'cam'"):
            await ask(desk, {"action": "scale", "modules": {"camm": 2}})
        with pytest.raises(Refused, match="two writers"):
            await ask(desk, {"action": "scale", "modules": {"sfl": 2}})

    assert not await Life(Outside()).run(work)


async def test_a_module_that_never_gets_ready_fails_its_lane_and_no_other() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        target = desk.executor.target
        assert isinstance(target, SimulatedTarget)
        target.knobs.crashing.add("cam")
        items = await ask(
            desk, up(declaration(1, "info").replace("run: serve\n    instances: 2", "run: serve"))
        )
        assert items[-1].get("ok") is False
        ready = {i.module for i in desk.loop.world.instances() if i.state == "ready"}
        assert ready == {"jede", "sfl"}

    assert not await Life(outside).run(work)


async def test_what_failed_is_begun_anew_when_it_is_asked_for_again() -> None:
    outside = Outside()
    declared = up(declaration(1, "info"))

    async def work(desk: Desk) -> None:
        target = desk.executor.target
        assert isinstance(target, SimulatedTarget)
        target.knobs.crashing.add("cam")
        items = await ask(desk, declared)
        assert items[-1].get("ok") is False
        target.knobs.crashing.clear()  # somebody mended it
        items = await ask(desk, declared)
        assert items[-1].get("ok"), items
        assert all(i.state == "ready" for i in desk.loop.world.instances())

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S5")
async def test_a_down_that_is_cut_off_has_ended_nothing() -> None:
    """Else control would clear the sockets and credentials of what still runs."""
    outside = Outside()
    life = Life(outside)

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        begun = asyncio.Event()

        async def never(name: str) -> None:
            begun.set()
            await asyncio.Event().wait()

        desk.executor.stop_part = never
        desk.tasks.create_task(ask(desk, {"action": "down"}))
        await begun.wait()  # and control is told to end

    assert not await life.run(work)
    assert life.desk is not None
    assert outside.parts
    assert not life.desk.stopped.is_set()


async def test_a_down_that_fails_and_cannot_say_so_does_not_end_control() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))

        async def cannot(name: str) -> None:
            raise PartError("It does not end.")

        async def broken(*_: object) -> None:
            raise PartError("The disk is gone.")

        desk.executor.stop_part = cannot
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outside.store, "finish", broken)
            assert (await ask(desk, {"action": "down"}))[-1].get("ok") is False
        assert not desk.stopped.is_set()
        with pytest.raises(Refused, match="not up"):
            await ask(desk, {"action": "scale", "modules": {"cam": 1}})
        assert (await ask(desk, up(declaration(1, "info"))))[-1].get("ok")

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S5")
async def test_a_down_does_not_wait_for_what_will_never_be_ready() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        target = desk.executor.target
        assert isinstance(target, SimulatedTarget)
        target.knobs.never_ready.add("cam")

        async def first() -> None:
            assert (await ask(desk, up(declaration(1, "info"))))[-1].get("ok") is False

        async def between() -> None:
            items = await ask(desk, {"action": "scale", "modules": {"jede": 2}})
            assert items[0] == {"type": "message", "text": "Waiting for 'up' to end."}
            assert items[-1].get("reason") == "The platform is going down."

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(first())
            assert await desk.loop.wait(lambda world: len(world.instances()) == 4, 5.0)
            tasks.create_task(between())
            await asyncio.sleep(0.01)
            assert (await ask(desk, {"action": "down"}))[-1].get("ok")
        assert not outside.machine.instances

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S4")
async def test_another_name_needs_a_new_start() -> None:
    """It is in every identity: policies would follow it at once, and certificates would not."""
    outside = Outside()
    renamed = up(declaration(1, "info").replace("platform: shop", "platform: store"))

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        with pytest.raises(Refused, match="is called shop, the file says store"):
            await ask(desk, renamed)
        await ask(desk, {"action": "down"})

    async def again(desk: Desk) -> None:
        assert (await ask(desk, renamed))[-1].get("ok")

    assert not await Life(outside).run(work)
    assert not await Life(outside).run(again)


async def test_what_proxies_refuse_is_told_in_their_words() -> None:
    async def work(desk: Desk) -> None:
        refused = BarrierResult((), (), (Rejection("jede-1", "listener in.http", "no such port", 1.0),))

        async def barrier(timeout_s: float) -> BarrierResult:
            return refused

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(desk.plane, "barrier", barrier)
            items = await ask(desk, up(declaration(1, "info")))
        assert {"type": "message", "text": "jede-1 refuses listener in.http: no such port"} in items
        assert items[-1].get("ok") is False

    assert not await Life(Outside()).run(work)


@pytest.mark.requirement("S5")
async def test_a_declaration_that_cannot_be_read_any_more_is_named_and_what_runs_can_be_stopped() -> None:
    outside = Outside()

    async def begin(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        wanted = replace(desk.wanted, text="platform: shop\nmodules: {cam: {ran: serve}}\n")
        await outside.store.note(CONTROL, "test", {}, documents=wanted.documents())

    async def go_on(desk: Desk) -> None:
        status = await desk.status(False)
        assert "cannot be read by this version (platform.yaml:2:" in status["warnings"][0]
        assert (await ask(desk, {"action": "down"}))[-1].get("ok")
        assert not outside.machine.instances
        assert not outside.parts

    assert not await Life(outside).run(begin)
    assert not await Life(outside).run(go_on)
