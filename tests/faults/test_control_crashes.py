"""Control killed at every step of every change: the next start always converges.

Control runs on the simulators of its parts (each passes the contract of the real one). The journal
crashes before or after its n-th write, which is every boundary there is: before an intent, between intent
and effect, between effect and outcome, before the end. What outlives control (processes, the journal's
durable part) is kept, a new control starts on it, and the world must come to what was asked for last.
"""

from __future__ import annotations

import asyncio
import base64
import random
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from idi.api.paths import paths_for
from idi.api.problems import Invalid
from idi.api.types import ChangeRequest, Progress
from idi.control.actors import CONTROL
from idi.control.audit_pages import AuditPages
from idi.control.bus.broker import Broker, BrokerHere
from idi.control.bus.events import Events
from idi.control.bus.topics import Topics
from idi.control.change import reconciler as reconciler_module
from idi.control.change import turns as turns_module
from idi.control.change.apply import Executor
from idi.control.change.outlook import Outlook
from idi.control.change.reconciler import Reconciler
from idi.control.change.runs import Runs
from idi.control.desk import Desk, actor_of
from idi.control.figures import Figures, Reading
from idi.control.loop import Edge, Loop
from idi.control.registrations import Registrations
from idi.control.settings import Settings
from idi.control.trust.logins import Logins
from idi.control.trust.rotation import Rotation
from idi.control.trust.secrets import Secrets
from idi.declaration.types import ModuleName, Platform
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus
from idi.parts.clients.machine import Peer
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.discovery.registry import Registry
from idi.parts.errors import PartError, Refused
from idi.parts.gateway.interface import BarrierResult, Rejection
from idi.parts.secrets.interface import SecretStore
from idi.parts.secrets.simulator import SimulatedSecrets
from idi.parts.store.interface import Actor
from idi.parts.store.memory import Crash, MemoryStore
from idi.parts.targets.interface import Variable
from idi.parts.targets.simulator import Knobs, Machine, SimulatedTarget
from idi.plan.difference import difference
from idi.traffic.types import EmbeddedKeys
from idi.world.events import Event, InstanceGone, InstanceSeen, PartChanged
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
    secrets: {{KEY: jede/key}}
  cam:
    run: serve
    instances: 2
    secrets: {{KEY: jede/key, OTHER: cam/other}}
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


def no_own(module: str, path: str, version: int) -> str:
    raise AssertionError(path)


async def no_figures(node: object) -> Reading:
    raise AssertionError(node)


@dataclass
class Seats:
    """Seats that are lent; they outlive control, and so do those who sit there."""

    lent: dict[InstanceId, Instance]
    emit: Callable[[Event], None]

    def adopt(self) -> None:
        for one in self.lent.values():
            self.emit(InstanceSeen(one))

    async def attach(self, spec: RevisionSpec, port: int) -> Instance:
        raise AssertionError(spec)

    async def detach(self, instance: InstanceId) -> None:
        if (one := self.lent.pop(instance, None)) is not None:
            self.emit(InstanceGone(one.module, instance, 1.0))

    def attached(self) -> list[InstanceId]:
        return []

    async def lend(self, spec: RevisionSpec, by: str, holder: int) -> Instance:
        name, ports = InstanceId(f"{spec.module}-99"), {"http": 1}
        if name not in self.lent:
            one = Instance(name, spec.module, spec.revision, "ready", "127.0.0.1", ports, ports, {}, 1.0)
            self.lent[name] = replace(one, supervised=False, by=by, pid=holder)
        self.emit(InstanceSeen(self.lent[name]))
        return self.lent[name]

    def take(self, instance: InstanceId, pid: int, asking: int) -> None:
        raise AssertionError(instance)

    def over(self, instance: InstanceId) -> str:
        return ""

    async def environment(
        self, spec: RevisionSpec, instance: InstanceId | None, *, reveal: bool
    ) -> list[Variable]:
        raise AssertionError(spec)


@dataclass
class Outside:
    """What outlives control."""

    store: MemoryStore = field(default_factory=MemoryStore)
    machine: Machine = field(default_factory=Machine)
    knobs: Knobs = field(default_factory=Knobs)
    parts: set[str] = field(default_factory=set)
    secrets: SimulatedSecrets = field(default_factory=SimulatedSecrets)
    lent: dict[InstanceId, Instance] = field(default_factory=dict)

    async def vault(self) -> SecretStore:
        return self.secrets


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
        unused: Any = None
        loop = Loop(plane, Edge("127.0.0.1", 8080, lambda platform: KEYS))

        async def retire(instance: Instance) -> None:
            await plane.barrier(1.0)

        async def start_part(name: str) -> None:
            outside.parts.add(name)
            loop.emit(PartChanged(name, "ready", 1.0, 7))

        async def stop_part(name: str) -> None:
            outside.parts.discard(name)
            loop.emit(PartChanged(name, "absent", 1.0))

        target = SimulatedTarget(loop.emit, retire, machine=outside.machine, knobs=outside.knobs)
        seats = Seats(outside.lent, loop.emit)
        registrations = Registrations(Registry(b"key", lambda: 0.0), seats, outside.store)

        async def ask_desk(request: ChangeRequest, actor: Actor) -> bool:
            return await reconciler.ask(request, actor)

        runs = Runs(seats, loop, outside.store, lambda: reconciler.wanted, lambda: reconciler.idle, ask_desk)
        async with target, OwnedTasks() as tasks:
            reconciler = Reconciler(
                settings=Settings(paths_for(FILE, "dev"), "dev", str(FILE.parent)),
                store=outside.store,
                loop=loop,
                plane=plane,
                executor=Executor(loop, target, start_part, stop_part, registrations.dismiss, lend=runs.lend),
                tasks=tasks,
                adopt_platform=lambda platform: None,
                check=lambda: None,
                resolve=same,
                topics=Topics(no_broker),
                secrets=Secrets(outside.store, outside.vault, no_own, clock=lambda: 1.0),
                rotation=Rotation(
                    outside.store,
                    unused,
                    unused,
                    plane,
                    Logins(Broker(BrokerHere(Path(), lambda: loop.world), lambda _: b"")),
                ),
                outlook=Outlook(target, loop, outside.store, tasks),
            )
            desk = Desk(
                reconciler=reconciler,
                warnings=list,
                figures=Figures(no_figures),
                tokens=NoTokens(),  # type: ignore[arg-type]
                registrations=registrations,
                events=Events(no_broker, outside.store),
                keys=unused,
                runs=runs,
                pages=AuditPages(Path()),
            )
            self.desk = desk
            await desk.reconciler.recall()
            await target.adopt()
            seats.adopt()
            for name in sorted(outside.parts):
                await start_part(name)
            await work(desk)
            validate(loop.world)


async def ask(desk: Desk, request: ChangeRequest) -> list[Progress]:
    return [item async for item in await desk.change(request, PEER)]


def up(text: str) -> ChangeRequest:
    return {"action": "up", "text": text, "file": "platform.yaml"}


def running(command: str) -> str:
    """The same with another program for cam."""
    return declaration(1, "info").replace("cam:\n    run: serve", f"cam:\n    run: {command}")


NEWER = up(running("newer"))
UNANSWERED = 4
SILENT = up(declaration(UNANSWERED, "info"))
"""One whose issuer does not answer."""


def secret(path: str, value: bytes) -> ChangeRequest:
    return {"action": "secret", "path": path, "value": base64.b64encode(value.hex().encode()).decode()}


def some_requests(rng: random.Random) -> list[ChangeRequest]:
    """A few changes; the first one brings the platform up."""
    requests: list[ChangeRequest] = [up(declaration(rng.randint(0, 4), "info"))]
    for _ in range(rng.randint(1, 4)):
        possible: list[ChangeRequest] = [
            up(declaration(rng.randint(0, 4), rng.choice(["info", "debug"]))),
            up(declaration(2, "info", storage=rng.random() < 0.5)),
            {"action": "scale", "modules": {"cam": rng.randint(0, 5), "jede": rng.randint(0, 5)}},
            {"action": "restart", "modules": [rng.choice(["cam", "jede", "sfl"])]},
            some_values(rng),
            some_values(rng),
            secret(rng.choice(["jede/key", "cam/other", "nobody/uses"]), rng.randbytes(8)),
            {"action": "down"},
        ]
        if rng.random() < 0.3:
            name = rng.choice(["cam", "jede", "sfl"])
            there: list[ChangeRequest] = [
                {"action": "run", "module": name},
                {"action": "hand-over", "module": name},
                {"action": "give-back", "module": name},
            ]
            requests += there[: rng.randint(1, 3)]
        requests.append(rng.choice(possible))
        if requests[-1]["action"] == "down":
            break
    return requests


def some_values(rng: random.Random) -> ChangeRequest:
    """A version is looked up when it is asked for, as the command does it."""
    values = {
        name: rng.choice(["info", "debug", "${port}"]) for name in ("LEVEL", "NEW") if rng.random() < 0.7
    }
    module = rng.choice(["cam", "jede", "sfl"])
    return {"action": "config", "module": module, "set": {**values, "N": 1}, "unset": [], "expect": -1}


async def at_its_version(desk: Desk, request: ChangeRequest) -> ChangeRequest:
    """Also without what was set before, every second time."""
    if request["action"] != "config":
        return request
    [now] = [one for one in (await desk.config())["modules"] if one["module"] == request["module"]]
    there = [one["name"] for one in now["values"] if one["origin"] == "idi config set"]
    unset = [name for name in there if name not in request["set"] and now["version"] % 2]
    return {**request, "unset": unset, "expect": now["version"]}


async def one_history(seed: int) -> None:
    rng = random.Random(seed)
    outside = Outside()
    requests = some_requests(rng)
    done = 0

    async def work(desk: Desk) -> None:
        nonlocal done
        while done < len(requests):
            try:
                last = (await ask(desk, await at_its_version(desk, requests[done])))[-1]
            except Refused:  # there is one, or it was begun before the crash: that one ends first
                request = requests[done]
                assert request["action"] == "run", seed
                assert request["module"] in desk.wanted.overlays.runs, seed
                await ask(desk, {"action": "give-back", "module": request["module"]})
                continue
            assert last["type"] == "done"
            assert last.get("ok") or "went away" in last.get("reason", ""), (seed, last)
            if not last.get("ok"):
                continue  # whoever gets no answer asks again
            done += 1

    crashes = 0
    while True:
        outside.secrets.lose_answers = rng.choice([0, 0, 1])
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
    assert difference(desk.reconciler.desired(), desk.loop.world).empty(), seed
    if requests[-1]["action"] == "down":
        assert not outside.machine.instances, seed
        assert not outside.parts, seed
    else:
        wanted = {name: module.ours for name, module in desk.reconciler.desired().modules.items()}
        have = dict.fromkeys(wanted, 0)
        for instance in outside.machine.instances.values():
            have[instance.module] += 1
        assert have == wanted, seed
    assert {one.module for one in outside.lent.values()} == desk.wanted.overlays.runs.keys(), seed
    # What holds is what was set last, and every instance runs with just that.
    for path, kept in desk.wanted.overlays.secrets.items():
        values = [r["value"] for r in requests if r["action"] == "secret" and r["path"] == path]
        value = await outside.secrets.get(path, kept.version)
        assert base64.b64encode(value or b"").decode() == values[-1], (seed, path)
    for instance in outside.machine.instances.values():
        spec = outside.machine.specs[(instance.module, instance.revision)]
        for path, version in spec.secrets.items():
            known = desk.wanted.overlays.secrets
            whole = all(other in known for other in spec.secrets)
            assert version == (known[path].version if whole else 0), seed
    assert await outside.store.unfinished() == [], seed
    report = outside.store.verify()
    assert not report.findings, (seed, report.findings)
    # What is wanted is what runs: values that were set before a crash are neither lost nor half there.
    for name, module in desk.reconciler.desired().modules.items():
        set_there = desk.wanted.overlays.config.get(name, {})
        for variable, text in set_there.items():
            assert module.spec.environment[variable] == text.text, (seed, name, variable)


@pytest.mark.requirement("S5", "R1")
async def test_killed_at_any_step_control_converges(seeded: random.Random) -> None:
    for _ in range(scale(60, 600)):
        seed = seeded.randrange(1 << 32)
        async with asyncio.timeout(20):
            await one_history(seed)


@pytest.mark.requirement("S1", "S2")
async def test_a_secret_rolls_those_that_declare_it_and_no_other() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(2, "info")))
        for path in ("jede/key", "cam/other"):
            assert (await ask(desk, secret(path, path.encode())))[-1].get("ok")
        before = {one.id: one.revision for one in desk.loop.world.instances()}
        items = await ask(desk, {"action": "secret", "path": "cam/other"})
        assert items[-1].get("ok"), items
        after = {one.id: one.revision for one in desk.loop.world.instances()}
        assert {i for i in before if i.startswith("cam")}.isdisjoint(
            i for i, revision in after.items() if before.get(i) == revision
        )
        assert {i: r for i, r in before.items() if "cam" not in i} == {
            i: r for i, r in after.items() if "cam" not in i
        }
        assert await outside.secrets.get("cam/other", 2) not in (None, b"cam/other")
        # What nobody declares rolls nobody.
        items = await ask(desk, secret("nobody/uses", b"it"))
        assert items[-1].get("ok")
        assert {one.id: one.revision for one in desk.loop.world.instances()} == after

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S2")
async def test_a_value_that_came_without_its_answer_is_used_by_nobody_until_it_is_asked_for_again() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        await ask(desk, secret("jede/key", b"first"))
        outside.secrets.lose_answers = 1
        last = (await ask(desk, secret("jede/key", b"second")))[-1]
        assert (last.get("ok"), last.get("reason")) == (False, "The store went away before it answered.")
        assert desk.wanted.overlays.secrets["jede/key"].version == 1
        assert (await ask(desk, secret("jede/key", b"second")))[-1].get("ok")
        kept = desk.wanted.overlays.secrets["jede/key"].version
        assert (kept, await outside.secrets.get("jede/key", kept)) == (3, b"second".hex().encode())

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S2", "T4")
async def test_what_a_store_that_is_down_or_a_bad_value_changes() -> None:
    """Nothing: not in the journal either."""
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        size = desk.store.state.size
        outside.secrets.down = "OpenBao is sealed."
        last = (await ask(desk, secret("jede/key", b"x")))[-1]
        assert (last.get("ok"), last.get("reason")) == (False, "OpenBao is sealed.")
        outside.secrets.down = ""
        no_text = base64.b64encode(b"\xff\0").decode()
        refused: list[tuple[str, str, str]] = [
            ("jede/key", no_text, "is no text"),
            ("jede/key", "", "is empty"),
            ("jede/key", "!", "is not base64"),
            ("jede/key", base64.b64encode(bytes(65537)).decode(), "65536 is the most"),
            ("../jede", "eA==", "write a path in the secret store"),
            ("idi/bus", "eA==", "are the platform's own"),
        ]
        for path, value, why in refused:
            with pytest.raises(Refused, match=why):
                await ask(desk, {"action": "secret", "path": path, "value": value})
        with pytest.raises(Refused, match="nothing to rotate"):
            await ask(desk, {"action": "secret", "path": "jede/key"})
        assert desk.store.state.size == size

    assert not await Life(outside).run(work)


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
        target = desk.reconciler.executor.target
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
        target = desk.reconciler.executor.target
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

        desk.reconciler.executor.stop_part = never
        desk.reconciler.tasks.create_task(ask(desk, {"action": "down"}))
        await begun.wait()  # and control is told to end

    assert not await life.run(work)
    assert life.desk is not None
    assert outside.parts
    assert not life.desk.reconciler.stopped.is_set()


async def test_a_down_that_fails_and_cannot_say_so_does_not_end_control() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))

        async def cannot(name: str) -> None:
            raise PartError("It does not end.")

        async def broken(*_: object) -> None:
            raise PartError("The disk is gone.")

        desk.reconciler.executor.stop_part = cannot
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outside.store, "finish", broken)
            assert (await ask(desk, {"action": "down"}))[-1].get("ok") is False
        assert not desk.reconciler.stopped.is_set()
        with pytest.raises(Refused, match="not up"):
            await ask(desk, {"action": "scale", "modules": {"cam": 1}})
        assert (await ask(desk, up(declaration(1, "info"))))[-1].get("ok")

    assert not await Life(outside).run(work)


@pytest.mark.requirement("S5")
async def test_a_down_does_not_wait_for_what_will_never_be_ready() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        target = desk.reconciler.executor.target
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


@pytest.mark.requirement("S5")
async def test_a_new_up_goes_before_one_that_control_took_up_again() -> None:
    """It ends at the boundary of a step, each step with its outcome, and the new one does what it had left."""
    outside = Outside(knobs=Knobs(never_ready={"cam"}))

    async def first(desk: Desk) -> None:
        ensure = desk.reconciler.executor.target.ensure

        async def hangs(spec: RevisionSpec, count: int, around: str = "") -> None:
            if spec.module == "sfl":
                await asyncio.Event().wait()
            await ensure(spec, count, around)

        desk.reconciler.executor.target.ensure = hangs  # type: ignore[method-assign]
        desk.reconciler.tasks.create_task(ask(desk, up(declaration(1, "info"))))
        assert await desk.loop.wait(lambda world: len(world.instances()) == 3, 5.0)
        raise Crash

    assert await Life(outside).run(first)
    assert await outside.store.unfinished()
    told: list[Progress] = []

    async def second(desk: Desk) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconciler_module, "RESUME_AFTER_S", 0.01)
            patch.setattr(turns_module, "SAY_S", 0.02)
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                resuming = tasks.create_task(desk.reconciler.resume())
                await asyncio.sleep(0.05)
                assert desk.reconciler.turns.running is not None
                # What waits for nothing but its turn hears what for.
                scale = tasks.create_task(ask(desk, {"action": "scale", "modules": {"jede": 1}}))
                await asyncio.sleep(0.1)
                outside.knobs.never_ready.discard("cam")
                new = declaration(2, "info").replace("cam:\n    run: serve", "cam:\n    run: new")
                told.extend(await ask(desk, up(new)))
                await resuming
                waited = await scale
        texts = [item.get("text", "") for item in waited if item["type"] == "message"]
        assert texts[0] == "Waiting for 'up' to end."
        assert texts[1].startswith("'up' is at: cam: wait until 2 of"), texts
        assert told[-1].get("ok"), told
        assert (
            told[0].get("text")
            == "'up', which control had taken up again, ends after the step that it is at."
        )
        cam = desk.loop.world.modules[ModuleName("cam")].instances.values()
        assert [one.state for one in cam] == ["ready"] * 2

    assert not await Life(outside).run(second)
    assert not await outside.store.unfinished()
    entries = await outside.store.entries(limit=1000)
    resumed = next(one for one in entries if one.actor == CONTROL and one.phase == "begin")
    mine = [one for one in entries if one.change == resumed.index]
    assert sum(one.phase == "intent" for one in mine) == sum(one.phase == "outcome" for one in mine) > 0
    assert "a newer declaration has come" in str(mine[-1])


@pytest.mark.requirement("S5")
@pytest.mark.parametrize(
    ("before", "between", "cam"),
    [
        pytest.param(SILENT, [], "new", id="nothing more"),
        pytest.param(SILENT, [{"action": "scale", "modules": {"jede": 1}}], "new", id="a scale"),
        pytest.param(SILENT, [NEWER], "newer", id="an up that holds"),
        pytest.param(SILENT, [NEWER, SILENT], "newer", id="an up that holds and one that does not"),
        pytest.param(NEWER, [SILENT], "newer", id="before it one that holds"),
        pytest.param(SILENT, [{"action": "down"}], "", id="a down"),
    ],
)
@pytest.mark.parametrize("early", [True, False], ids=["asked for before it gave way", "asked for after it"])
async def test_what_gave_way_to_an_up_that_came_to_nothing_is_taken_up_once_more(
    before: ChangeRequest, between: list[ChangeRequest], cam: str, early: bool
) -> None:
    """Unless something else was declared meanwhile."""
    outside = Outside()

    async def first(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        begun = asyncio.Event()

        async def hangs(spec: RevisionSpec, count: int, around: str = "") -> None:
            begun.set()
            await asyncio.Event().wait()

        desk.reconciler.executor.target.ensure = hangs  # type: ignore[method-assign]
        desk.reconciler.tasks.create_task(ask(desk, up(running("new"))))
        await begun.wait()
        raise Crash

    assert await Life(outside).run(first)

    async def second(desk: Desk) -> None:
        reconciler = desk.reconciler
        ensure, resolve = reconciler.executor.target.ensure, reconciler.resolve
        coming, silence = asyncio.Event(), asyncio.Event()

        async def waits(spec: RevisionSpec, count: int, around: str = "") -> None:
            await coming.wait()
            await ensure(spec, count, around)

        async def answers_late(platform: Platform) -> Platform:
            await silence.wait()
            if platform.modules[ModuleName("jede")].instances == UNANSWERED:
                raise PartError("The issuer does not answer.")
            return await resolve(platform)

        reconciler.executor.target.ensure = waits  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconciler_module, "RESUME_AFTER_S", 0.01)
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                resuming = tasks.create_task(reconciler.resume())
                await asyncio.sleep(0.05)
                assert reconciler.turns.running is not None
                reconciler.resolve = answers_late
                one = tasks.create_task(ask(desk, before))
                await asyncio.sleep(0.01)
                if early:
                    others = [tasks.create_task(ask(desk, one)) for one in between]
                    await asyncio.sleep(0.01)
                coming.set()
                await asyncio.sleep(0.05)
                if not early:
                    assert not one.done()
                    others = [tasks.create_task(ask(desk, one)) for one in between]
                    await asyncio.sleep(0.01)
                silence.set()
                for asked, said in zip([before, *between], [one, *others], strict=True):
                    assert (await said)[-1].get("ok") is (asked is not SILENT)
                await resuming
        modules = desk.loop.world.modules
        there = modules[ModuleName("cam")].revisions.values() if ModuleName("cam") in modules else ()
        assert [one.spec.command for one in there] == ([cam] if cam else [])

    assert not await Life(outside).run(second)
    assert not await outside.store.unfinished()
    entries = await outside.store.entries(limit=1000)
    ends = [one for one in entries if one.phase == "finish"]
    assert sum("a newer declaration has come" in str(one) for one in ends) == 1
    by_control = [one for one in entries if one.phase == "begin" and one.actor == CONTROL]
    assert len(by_control) == (2 if cam == "new" else 1)


@pytest.mark.requirement("S5")
async def test_an_up_that_arrives_in_the_moment_of_resuming_goes_before_it() -> None:
    """It is announced and not yet in the queue when the other one takes its turn."""
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        arrived = desk.reconciler.change(NEWER, actor_of(PEER))
        async with asyncio.timeout(10):
            assert not await desk.reconciler.ask(up(running("new")), CONTROL, resumed=True)
            assert [item async for item in arrived][-1].get("ok")
        [cam] = desk.loop.world.modules[ModuleName("cam")].revisions.values()
        assert cam.spec.command == "newer"

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
            patch.setattr(desk.reconciler.plane, "barrier", barrier)
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


# --- configuration ---


def config(module: str, expect: int, unset: tuple[str, ...] = (), **values: str | int) -> ChangeRequest:
    return {"action": "config", "module": module, "set": {**values}, "unset": [*unset], "expect": expect}


def revisions(desk: Desk) -> dict[str, dict[str, Mapping[str, str]]]:
    """Those of each module that run, with their variables."""
    return {
        name: {id: revision.spec.environment for id, revision in module.revisions.items()}
        for name, module in desk.loop.world.modules.items()
    }


@pytest.mark.requirement("S1")
async def test_a_value_renews_its_module_and_no_other_and_stays() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(2, "info")))
        before = revisions(desk)
        items = await ask(desk, config("jede", 0, LEVEL="debug", WORKERS=4))
        assert items[-1].get("ok"), items
        told = [item["text"] for item in items if item["type"] == "message"]
        assert told == [
            "WORKERS is a new variable: platform.yaml has none of that name for jede.",
            "The configuration of jede is version 1 now.",
        ]
        after = revisions(desk)
        assert {**after, "jede": {}} == {**before, "jede": {}}
        [variables] = after["jede"].values()
        assert (variables["LEVEL"], variables["WORKERS"]) == ("debug", "4")
        plan = await desk.plan({"action": "up", "text": declaration(2, "info"), "file": "platform.yaml"})
        assert plan["steps"] == []
        assert plan["origins"]["modules.jede.config.LEVEL"] == "idi config set"
        assert any("--unset LEVEL goes back to that." in warning for warning in plan["warnings"])
        items = await ask(desk, up(declaration(2, "info")))
        assert [item["type"] for item in items if item["type"] == "step"] == []
        assert revisions(desk) == after

    async def again(desk: Desk) -> None:
        """Another life of control, and the way back."""
        view = await desk.config()
        [jede] = [one for one in view["modules"] if one["module"] == "jede"]
        assert (jede["module"], jede["version"]) == ("jede", 1)
        assert [one for one in jede["values"] if one["origin"] == "idi config set"] == [
            {"name": "LEVEL", "value": "debug", "origin": "idi config set"},
            {"name": "WORKERS", "value": "4", "origin": "idi config set"},
        ]
        [key] = [one for one in jede["values"] if one["name"] == "KEY"]
        assert key["value"] is None, "a secret is there, and is not shown"
        assert (await ask(desk, config("jede", 1, ("WORKERS",), LEVEL="info")))[-1].get("ok")
        assert desk.wanted.overlays.config == {}
        assert desk.wanted.overlays.versions == {"jede": 2}
        items = await ask(desk, config("jede", 2, LEVEL="info"))  # what the file says is nothing to keep
        assert {"type": "message", "text": "Nothing to change."} in items
        assert desk.wanted.overlays.versions == {"jede": 2}

    assert not await Life(outside).run(work)
    assert not await Life(outside).run(again)


@pytest.mark.requirement("S1")
async def test_of_two_who_set_at_once_one_is_told_and_nothing_is_lost() -> None:
    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        async with asyncio.TaskGroup() as tasks:
            both = [
                tasks.create_task(ask(desk, config("jede", 0, LEVEL=value))) for value in ("debug", "trace")
            ]
        first, second = (task.result()[-1] for task in both)
        assert first.get("ok")
        assert second.get("ok") is False
        assert second.get("reason") == (
            "The configuration of jede is version 1, not 0: somebody changed it. There is LEVEL=debug "
            "(idi config set); wanted was LEVEL=trace."
        )
        with pytest.raises(Refused, match=r"There is LEVEL=debug .*; wanted was no LEVEL") as refused:
            await ask(desk, config("jede", 0, ("LEVEL",)))
        assert "--expect 1" in refused.value.way_out
        assert (await ask(desk, config("cam", 0, LEVEL="debug")))[-1].get("ok"), "a version is of one module"

    assert not await Life(Outside()).run(work)


@pytest.mark.requirement("S1")
async def test_what_cannot_be_set_is_refused_before_anything_is_begun() -> None:
    async def work(desk: Desk) -> None:
        with pytest.raises(Refused, match="not up"):
            await ask(desk, config("jede", 0, LEVEL="debug"))
        with pytest.raises(Refused, match="not up"):
            await desk.config()
        await ask(desk, up(declaration(1, "info")))
        size = desk.store.state.size
        for values, said in (
            ({"PORT": "1"}, "PORT is set by the platform itself for every module"),
            ({"CAM_URL": "x"}, "since jede calls cam"),
            ({"LEVEL": 5}, "in line 8 of the file it is text"),
            ({"A": "${peer.sfl.url}"}, "the module does not call 'sfl'"),
            ({"A": "${secret.x}"}, "does not declare this secret"),
        ):
            with pytest.raises(Invalid) as invalid:
                await ask(desk, config("jede", 0, **values))
            [mistake] = invalid.value.mistakes
            assert said in mistake
        with pytest.raises(Refused, match="NEW of jede is not set by idi config set"):
            await ask(desk, config("jede", 0, ("NEW",)))
        with pytest.raises(Refused, match="Did you mean 'jede'"):
            await ask(desk, config("jedd", 0, A="b"))
        assert desk.store.state.size == size
        assert desk.wanted.overlays.versions == {}

    assert not await Life(Outside()).run(work)


@pytest.mark.requirement("S1", "S5")
async def test_the_journal_names_variables_and_never_a_value() -> None:
    outside = Outside()

    async def work(desk: Desk) -> None:
        await ask(desk, up(declaration(1, "info")))
        before = desk.store.state.size
        assert (await ask(desk, config("jede", 0, LEVEL="confidential", NEW="confidential")))[-1].get("ok")
        with pytest.raises(Refused):
            await ask(desk, config("jede", 0, LEVEL="confidential"))
        entries = [str(entry) for entry in await desk.store.entries(start=before)]
        assert any("LEVEL" in entry for entry in entries)
        assert not any("confidential" in entry for entry in entries)

    assert not await Life(outside).run(work)
