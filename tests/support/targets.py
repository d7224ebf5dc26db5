"""Stages on which a target plays: the simulator and the local one, driven alike by the contract tests.

A stage is what outlives control (files, processes, or the simulator's machine) and the control above it:
it hears the events, keeps the world that follows from them, plays the data plane and counts what leaks.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from idi.declaration.types import ModuleName, Readiness
from idi.parts.clients.machine import this_machine
from idi.parts.targets.backoff import Policy
from idi.parts.targets.interface import SidecarSpec, Target
from idi.parts.targets.local.strays import marked
from idi.parts.targets.local.target import LocalTarget
from idi.parts.targets.simulator import Knobs, Machine, SimulatedTarget
from idi.world.events import Event, InstanceSeen
from idi.world.fold import fold
from idi.world.types import Instance, InstanceId, PeerPort, PortSpec, RevisionId, RevisionSpec, World

JEDE = ModuleName("jede")
SMALL_MODULE = Path(__file__).with_name("small_module.py")
QUICK = Policy(first_s=0.01, longest_s=0.2, steady_s=0.5, quick_deaths=4)


def make_spec(
    module: str = "jede",
    revision: str = "00000001",
    *,
    command: str = f"exec python -I -S {SMALL_MODULE}",
    readiness: Readiness | None = None,
    environment: dict[str, str] | None = None,
    **more: Any,
) -> RevisionSpec:
    """A revision of the small module with one port and one peer."""
    fields: dict[str, Any] = {
        "version": "dev",
        "directory": ".",
        "ports": (PortSpec("http", "http"),),
        "peers": (PeerPort("cam", "http"),),
        "grace_s": 5.0,
        "storage": False,
        **more,
    }
    return RevisionSpec(
        module=ModuleName(module),
        revision=RevisionId(revision),
        command=command,
        environment=environment or {},
        readiness=readiness or Readiness(every_s=0.1, timeout_s=1.0),
        **fields,
    )


class Told:
    """What a target told: every event, and the world folded from them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.world = World()
        self.sidecars_connect = True
        self.target: Target | None = None

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.world, _ = fold(self.world, event)
        if isinstance(event, InstanceSeen) and event.instance.sidecar_pid and self.sidecars_connect:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._connect, event.instance.id, event.instance.sidecar_pid)

    def _connect(self, name: InstanceId, pid: int) -> None:
        known = self.instances().get(name)
        if self.target is not None and known is not None and known.sidecar_pid == pid:
            self.target.sidecar_ready(name, True)

    def instances(self) -> dict[InstanceId, Instance]:
        return {one.id: one for one in self.world.instances()}

    def states(self) -> dict[str, str]:
        return {one.id: one.state for one in self.world.instances()}

    def names(self, *, since: int = 0) -> list[str]:
        """The kinds of events in order, without repetitions of `InstanceSeen`."""
        kinds = [type(event).__name__ for event in self.events[since:]]
        return [
            kind
            for place, kind in enumerate(kinds)
            if kind != "InstanceSeen" or kinds[place - 1 : place] != [kind]
        ]

    def of(self, kind: type[Any], *, since: int = 0) -> list[Any]:
        return [event for event in self.events[since:] if isinstance(event, kind)]


def ready(stage: Stage, count: int = 1) -> Callable[[], bool]:
    """Says whether exactly so many instances are there and all are ready."""
    return lambda: list(stage.told.states().values()) == ["ready"] * count


class Stage(Protocol):
    told: Told
    retired: list[Instance]
    retiring: asyncio.Event
    """Cleared, it holds every `retire` up until it is set again."""

    def control(self) -> AbstractAsyncContextManager[Target]:
        """A target on this stage; a second one after the first was left is the next control."""

    async def until(self, true: Callable[[], object]) -> None:
        """Let time pass until something holds; fails when it takes too long."""

    def spec(self, **more: Any) -> RevisionSpec: ...

    def never_ready(self, module: str) -> dict[str, Any]:
        """What a spec needs so that its instances never get ready."""

    def unstartable(self, module: str) -> dict[str, Any]: ...

    def crashing(self, module: str) -> dict[str, Any]: ...

    def mend(self, module: str) -> None:
        """What `crashing` said holds no longer."""

    def kill(self, name: str) -> None:
        """End the module's process of an instance from outside."""

    def kill_sidecar(self, name: str) -> None: ...

    def kill_between(self, name: str) -> None:
        """End it while no control is there."""

    def answer(self, name: str, good: bool) -> None:
        """From now on the module's readiness answers so."""


class _Base:
    def __init__(self) -> None:
        self.told = Told()
        self.retired: list[Instance] = []
        self.retiring = asyncio.Event()
        self.retiring.set()

    async def retire(self, instance: Instance) -> None:
        self.retired.append(instance)
        await self.retiring.wait()


class SimulatedStage(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.knobs = Knobs(start_s=0.5, sidecars=True)
        self.target: SimulatedTarget | None = None

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Target]:
        target = SimulatedTarget(self.told.emit, self.retire, machine=self.machine, knobs=self.knobs)
        async with target:
            self.target = self.told.target = target
            yield target
        self.target = self.told.target = None

    async def until(self, true: Callable[[], object]) -> None:
        for _ in range(1000):
            if true():
                return
            assert self.target is not None
            self.target.advance(0.1)
            await asyncio.sleep(0)
        raise AssertionError(f"never came true; {self.told.names()}")

    def spec(self, **more: Any) -> RevisionSpec:
        return make_spec(**more)

    def never_ready(self, module: str) -> dict[str, Any]:
        self.knobs.never_ready.add(module)
        return {}

    def unstartable(self, module: str) -> dict[str, Any]:
        self.knobs.unstartable.add(module)
        return {}

    def crashing(self, module: str) -> dict[str, Any]:
        self.knobs.crashing.add(module)
        return {}

    def mend(self, module: str) -> None:
        self.knobs.crashing.discard(module)

    def kill(self, name: str) -> None:
        assert self.target is not None
        self.target.crash(InstanceId(name))

    def kill_sidecar(self, name: str) -> None:
        assert self.target is not None
        self.target.crash_sidecar(InstanceId(name))

    def kill_between(self, name: str) -> None:
        self.machine.died.add(InstanceId(name))

    def answer(self, name: str, good: bool) -> None:
        assert self.target is not None
        self.target.answer(InstanceId(name), good)


class LocalStage(_Base):
    """`hash8` is the platform's; `sidecar` None: instances have none."""

    def __init__(
        self, folder: Path, hash8: str, sidecar: tuple[str, ...] | None = ("/bin/sleep", "1000")
    ) -> None:
        super().__init__()
        self.folder = folder
        self.hash8 = hash8
        self.sidecar = sidecar
        self.target: LocalTarget | None = None
        self.options: dict[str, Any] = {}
        """More arguments of `LocalTarget`."""
        folder.mkdir(exist_ok=True)

    def make(self) -> LocalTarget:
        return LocalTarget(
            platform_hash=self.hash8,
            state_dir=self.folder / "state",
            runtime_dir=self.folder / "run",
            directory=self.folder,
            retire=self.retire,
            emit=self.told.emit,
            **{"policy": QUICK, "make_sidecar": self.make_sidecar, **self.options},
        )

    def make_sidecar(self, _: Instance) -> SidecarSpec | None:
        return None if self.sidecar is None else SidecarSpec(self.sidecar)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalTarget]:
        async with self.make() as target:
            self.target = self.told.target = target
            yield target
        self.target = self.told.target = None

    async def until(self, true: Callable[[], object], timeout: float = 20.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not true():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"never came true; {self.told.events[-12:]}") from None

    def spec(self, **more: Any) -> RevisionSpec:
        unready = self.folder / "unready"
        given = {"UNREADY": f"{unready}-${{instance}}", **more.pop("environment", {})}
        return make_spec(environment=given, **more)

    def never_ready(self, module: str) -> dict[str, Any]:
        return {"environment": {"UNREADY": "/"}}

    def unstartable(self, module: str) -> dict[str, Any]:
        return {"directory": "no/such/folder"}

    def crashing(self, module: str) -> dict[str, Any]:
        mended = self.folder / f"mended-{module}"
        return {"command": f"test -e {mended} && exec python -I -S {SMALL_MODULE}; exit 3"}

    def mend(self, module: str) -> None:
        (self.folder / f"mended-{module}").touch()

    def kill(self, name: str) -> None:
        os.kill(self.told.instances()[InstanceId(name)].pid, signal.SIGKILL)

    def kill_sidecar(self, name: str) -> None:
        os.kill(self.told.instances()[InstanceId(name)].sidecar_pid, signal.SIGKILL)

    def kill_between(self, name: str) -> None:
        end_child(self.told.instances()[InstanceId(name)].pid)

    def answer(self, name: str, good: bool) -> None:
        flag = self.folder / f"unready-{name}"
        flag.unlink(missing_ok=True) if good else flag.touch()

    async def clear(self) -> None:
        """End whatever is left of this platform. Fails when something that should be gone is there."""
        self.told.sidecars_connect = False
        async with self.control() as target:
            await target.adopt()
            for module, revision in {
                (one.seat.spec.module, one.seat.spec.revision) for one in target.instances()
            }:
                await target.remove(module, revision)
            for name in target.recorded_parts():
                await target.stop_part(name)
        await self.until(lambda: not marked(this_machine(), self.hash8), timeout=10)


@asynccontextmanager
async def local_stage(folder: Path, hash8: str, **more: Any) -> AsyncIterator[LocalStage]:
    """A local stage that is cleared at the end; fails when a descriptor or a zombie is left."""
    before = open_files()
    stage = LocalStage(folder, hash8, **more)
    try:
        yield stage
    finally:
        stage.retiring.set()
        await stage.clear()
    assert open_files() <= before
    assert zombies() == []


def hash8_of(node: str) -> str:
    """A platform hash of a test's own."""
    return sha256(f"{os.getpid()}:{node}".encode()).hexdigest()[:8]


def gone(pid: int) -> bool:
    """Whether a process has ended (collected or not)."""
    seen = this_machine().look(pid)
    return seen is None or seen.zombie


def end_child(pid: int) -> None:
    """Kill and collect a child of this process that no target watches."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def open_files() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue
    return found


def zombies() -> list[int]:
    """Ended children of this process that nobody collected."""
    found = []
    for seen in this_machine().processes():
        if seen.zombie and _parent(seen.pid) == os.getpid():
            found.append(seen.pid)
    return found


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat[stat.rindex(")") + 2 :].split()[1])
