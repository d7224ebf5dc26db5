"""A target without processes, for tests of what stands above targets.

It keeps its own clock, which moves only by `advance`, and answers at once where nothing is to be waited
for; the same seed gives the same run. It passes the contract tests of targets, so what is tested against
it holds for the real one as far as the contract goes. `Machine` is what outlives control: a second
simulator on the same one adopts.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from idi.declaration.types import ModuleName
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import PartError
from idi.parts.targets.alone import Alone
from idi.parts.targets.interface import Emit, Retire
from idi.parts.targets.local.ports import choose_ports, free_slots
from idi.parts.targets.local.seats import by_kind, purposes
from idi.world.events import (
    InstanceDied,
    InstanceFailed,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    InstanceStopping,
    InstanceUnready,
    RevisionDegraded,
    RevisionEnsured,
    RevisionRemoved,
)
from idi.world.types import Instance, InstanceId, InstanceState, RevisionId, RevisionSpec

Key = tuple[ModuleName, RevisionId]


@dataclass
class Machine:
    """What outlives control: instances with their specs, the pids given so far, the clock."""

    now: float = 1_000_000.0
    specs: dict[Key, RevisionSpec] = field(default_factory=dict)
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    died: set[InstanceId] = field(default_factory=set)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))


@dataclass
class Knobs:
    """How it behaves. `start_s`: how long a start takes, each somewhat different (0: at once).
    `sidecars`: an instance is ready only after `sidecar_ready` was said. The sets name modules whose
    instances never get ready, crash as soon as they start, or cannot be started at all."""

    start_s: float = 0.0
    sidecars: bool = False
    never_ready: set[str] = field(default_factory=set)
    crashing: set[str] = field(default_factory=set)
    unstartable: set[str] = field(default_factory=set)


class SimulatedTarget(Alone):
    def __init__(
        self,
        emit: Emit,
        retire: Retire,
        *,
        machine: Machine | None = None,
        knobs: Knobs | None = None,
        seed: int = 0,
    ) -> None:
        self.machine = machine or Machine()
        self.knobs = knobs or Knobs()
        self._emit = emit
        self._retire = retire
        self._random = random.Random(seed)
        self._owned = OwnedTasks()
        self._counts: dict[Key, int] = {}
        self._module_ready: set[InstanceId] = set()
        self._sidecar_ready: set[InstanceId] = set()
        self._failing: set[InstanceId] = set()
        self._degraded: set[Key] = set()
        self._gone: dict[InstanceId, asyncio.Event] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    async def __aenter__(self) -> Self:
        await self._owned.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._owned.__aexit__(kind, error, trace)

    # --- what every target can do

    async def adopt(self) -> None:
        instances = list(self.machine.instances.values())
        for key, spec in self.machine.specs.items():
            mine = [one for one in instances if (one.module, one.revision) == key]
            if mine:
                self._counts[key] = sum(one.state != "stopping" for one in mine)
                self._emit(RevisionEnsured(spec, self._counts[key]))
        for one in instances:
            if one.state == "ready":
                self._module_ready.add(one.id)
                self._sidecar_ready.add(one.id)
            if one.state == "stopping":
                self._become(one.id, "starting")
            self._seen(one.id)
        for one in instances:
            if one.id in self.machine.died:
                self.machine.died.discard(one.id)
                self.crash(one.id, "ended while control was not running")
            elif one.state == "stopping":
                self._begin_retiring(one.id)
            elif one.state != "ready":
                self._answer_later(one.id)

    async def ensure(self, spec: RevisionSpec, count: int, around: str = "") -> None:  # noqa: ARG002
        key = (spec.module, spec.revision)
        if self._counts.get(key) != count:
            self._counts[key] = count
            self.machine.specs[key] = spec
            self._emit(RevisionEnsured(spec, count))
        kept = [one for one in self._of(key) if one.state != "stopping"]
        for one in sorted(kept, key=lambda one: (one.state == "ready", -_slot(one.id)))[
            : max(0, len(kept) - count)
        ]:
            self._begin_retiring(one.id)
        if len(kept) < count and spec.module in self.knobs.unstartable:
            raise PartError(f"{spec.module} cannot be started.", retryable=False)
        for _ in range(count - len(kept)):
            self._add(spec)
        for gone in [self._gone[one.id] for one in self._of(key) if one.state == "stopping"]:
            await gone.wait()

    async def retry(self, module: ModuleName, revision: RevisionId) -> None:
        for one in self._of((module, revision)):
            if one.state == "failed":
                self._failing.discard(one.id)
                self._judge(one, "")
                self._start(one.id, restarts=one.restarts + 1)

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        key = (module, revision)
        if key not in self._counts:
            return
        await self.ensure(self.machine.specs[key], 0)
        if self._counts.pop(key, None) is not None:
            del self.machine.specs[key]
            self._emit(RevisionRemoved(module, revision))

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        (self._sidecar_ready.add if ready else self._sidecar_ready.discard)(instance)
        self._settle(instance, "its sidecar has lost its listeners")

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        known = instance in self.machine.instances
        return [f"{instance} line {number}" for number in range(1, 4)][-count:] if known and count else []

    # --- what a test does to it

    def advance(self, seconds: float) -> None:
        """Let time pass, and with it what is due."""
        end = self.machine.now + seconds
        while self._due and self._due[0][0] <= end:
            self.machine.now, _, act = heapq.heappop(self._due)
            act()
        self.machine.now = end

    def crash(self, instance: InstanceId, reason: str = "was killed by SIGKILL") -> None:
        """Its process ends; it is started again at once."""
        one = self.machine.instances[instance]
        self._module_ready.discard(instance)
        self._become(instance, "starting", reason)
        self._emit(InstanceDied(one.module, instance, self.machine.now, reason))
        self._start(instance, restarts=one.restarts + 1)

    def crash_sidecar(self, instance: InstanceId) -> None:
        """Its sidecar ends; it is started again at once and connects when `sidecar_ready` says so."""
        one = self.machine.instances[instance]
        self._sidecar_ready.discard(instance)
        reason = "its sidecar was killed by SIGKILL"
        self._become(instance, "starting", reason)
        self._emit(InstanceDied(one.module, instance, self.machine.now, reason))
        self._change(instance, sidecar_pid=next(self.machine.pids), restarts=one.restarts + 1)
        self._seen(instance)
        self._settle(instance, "")

    def answer(self, instance: InstanceId, good: bool, reason: str = "/ready answered 503") -> None:
        """Its readiness path answers so from now on."""
        (self._module_ready.add if good else self._module_ready.discard)(instance)
        self._settle(instance, reason)

    # --- within

    def _of(self, key: Key) -> list[Instance]:
        return [one for one in self.machine.instances.values() if (one.module, one.revision) == key]

    def _add(self, spec: RevisionSpec) -> None:
        known = self.machine.instances
        slot = free_slots(1, {_slot(one.id) for one in known.values() if one.module == spec.module})[0]
        name = InstanceId(f"{spec.module}-{slot}")
        taken = {
            port
            for one in known.values()
            for group in (one.ports, one.mesh, one.outbound)
            for port in group.values()
        }
        chosen = choose_ports("simulated", name, purposes(spec), taken, lambda _: True)
        known[name] = Instance(
            id=name,
            module=spec.module,
            revision=spec.revision,
            state="starting",
            address="127.0.0.1",
            ports=by_kind(chosen, "port"),
            mesh=by_kind(chosen, "mesh"),
            outbound=by_kind(chosen, "outbound"),
            since=self.machine.now,
            sidecar_pid=next(self.machine.pids) if self.knobs.sidecars else 0,
        )
        self._start(name, restarts=0)

    def _start(self, name: InstanceId, restarts: int) -> None:
        self._change(name, pid=next(self.machine.pids), restarts=restarts)
        one = self.machine.instances[name]
        self._become(name, "failed" if name in self._failing else "starting", one.reason)
        self._seen(name)
        self._answer_later(name)

    def _answer_later(self, name: InstanceId) -> None:
        one = self.machine.instances[name]
        delay = self.knobs.start_s * self._random.uniform(0.5, 1.5)
        if one.module in self.knobs.crashing:
            self._after(delay, name, lambda: self._fail(name, "ended with exit code 1; 5 times in a row"))
        elif one.module in self.knobs.never_ready:
            deadline_s = self.machine.specs[(one.module, one.revision)].readiness.deadline_s
            self._after(deadline_s, name, lambda: self._fail(name, f"not ready within {deadline_s:g}s"))
        else:
            self._after(delay, name, lambda: self.answer(name, True))

    def _after(self, delay: float, name: InstanceId, act: Callable[[], None]) -> None:
        pid = self.machine.instances[name].pid

        def if_same() -> None:
            now = self.machine.instances.get(name)
            if now is not None and now.pid == pid and now.state != "stopping":
                act()

        if delay <= 0:
            if_same()
        else:
            heapq.heappush(self._due, (self.machine.now + delay, next(self._order), if_same))

    def _fail(self, name: InstanceId, reason: str) -> None:
        one = self.machine.instances[name]
        if one.module in self.knobs.crashing:
            self._emit(InstanceDied(one.module, name, self.machine.now, reason))
        self._become(name, "failed", reason)
        self._failing.add(name)
        self._emit(InstanceFailed(one.module, name, self.machine.now, reason))
        self._judge(one, reason)

    def _settle(self, name: InstanceId, reason: str) -> None:
        one = self.machine.instances.get(name)
        if one is None or one.state == "stopping":
            return
        ready = name in self._module_ready and (not self.knobs.sidecars or name in self._sidecar_ready)
        if ready and one.state != "ready":
            self._become(name, "ready")
            self._failing.discard(name)
            self._emit(InstanceReady(one.module, name, self.machine.now))
            self._judge(one, "")
        elif not ready and one.state == "ready":
            self._become(name, "unready", reason)
            self._emit(InstanceUnready(one.module, name, self.machine.now, reason))

    def _judge(self, one: Instance, reason: str) -> None:
        key = (one.module, one.revision)
        failing = any(other.id in self._failing for other in self._of(key))
        if failing != (key in self._degraded):
            (self._degraded.add if failing else self._degraded.discard)(key)
            self._emit(RevisionDegraded(one.module, one.revision, reason if failing else ""))

    def _begin_retiring(self, name: InstanceId) -> None:
        one = self.machine.instances[name]
        self._become(name, "stopping")
        self._gone[name] = asyncio.Event()
        self._emit(InstanceStopping(one.module, name, self.machine.now))
        self._owned.group.create_task(self._end(name))

    async def _end(self, name: InstanceId) -> None:
        one = self.machine.instances[name]
        await self._retire(one)
        del self.machine.instances[name]
        for known in (self._module_ready, self._sidecar_ready, self._failing):
            known.discard(name)
        self._gone.pop(name).set()
        self._emit(InstanceGone(one.module, name, self.machine.now))
        self._judge(one, "")

    def _become(self, name: InstanceId, state: InstanceState, reason: str = "") -> None:
        self._change(name, state=state, reason=reason, since=self.machine.now)

    def _change(self, name: InstanceId, **changes: object) -> None:
        self.machine.instances[name] = replace(self.machine.instances[name], **changes)  # type: ignore[arg-type]

    def _seen(self, name: InstanceId) -> None:
        self._emit(InstanceSeen(self.machine.instances[name]))


def _slot(name: InstanceId) -> int:
    return int(name.rpartition("-")[2])
