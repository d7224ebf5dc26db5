"""The local target: keeps instances of revisions running as processes on this machine.

Everything long runs in tasks that the target owns. A call such as `ensure` decides at once (which seats
to make, which instances to retire), sets that going and then only waits: if the caller is cancelled, what
was begun goes on, and a repeated call waits for the same. Leaving the target stops watching and ends
nothing; records on disk and markers in the processes let the next one take over.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from idi.declaration.types import ModuleName
from idi.parts.clients.machine import Machine, this_machine
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import Bug, PartError, Refused
from idi.parts.targets.alone import Alone
from idi.parts.targets.backoff import Policy
from idi.parts.targets.interface import Emit, Retire, Supply, Variable
from idi.parts.targets.local import adoption, strays
from idi.parts.targets.local.environment import base
from idi.parts.targets.local.instance import LocalInstance
from idi.parts.targets.local.output import Logs
from idi.parts.targets.local.part import BeforeStart, Part, find
from idi.parts.targets.local.ports import Free, free_slots, port_is_free
from idi.parts.targets.local.process import DEFAULT_GRACE_S, ProcessSpec
from idi.parts.targets.local.seating import attached_seat, lent_seat, make_folder, new_seat
from idi.parts.targets.local.seats import Occupant, Records, Seat
from idi.parts.targets.local.secrets import SecretFiles, memory_folder
from idi.parts.targets.local.shown import shown
from idi.parts.targets.local.site import MakeSidecar, Site
from idi.parts.targets.local.supervisor import Workshop
from idi.world.events import RevisionDegraded, RevisionEnsured, RevisionRemoved
from idi.world.types import Instance, InstanceId, RevisionId, RevisionSpec

RETIRE_DEADLINE_S = 120.0
STRAYS_S = 2.0
"""Grace period of processes that nobody accounts for."""

Key = tuple[ModuleName, RevisionId]


async def no_secrets(spec: RevisionSpec, paths: Collection[str]) -> Mapping[str, bytes]:
    raise Bug(f"Nobody has the secrets {', '.join(paths)} of {spec.module}.")


class LocalTarget(Alone):
    """`directory` is the folder of the declaration: working directories are relative to it."""

    def __init__(
        self,
        *,
        platform_hash: str,
        state_dir: Path,
        runtime_dir: Path,
        directory: Path,
        make_sidecar: MakeSidecar,
        retire: Retire,
        emit: Emit,
        policy: Policy | None = None,
        supply: Supply = no_secrets,
        retire_deadline_s: float = RETIRE_DEADLINE_S,
        machine: Machine | None = None,
        own_environment: Mapping[str, str] | None = None,
        free: Free = port_is_free,
        logs: Logs | None = None,
    ) -> None:
        machine = machine or this_machine()
        for folder in (state_dir, runtime_dir):
            make_folder(folder)
        self.logs = logs or Logs(state_dir / "logs")
        self._emit = emit
        self._owned = OwnedTasks()
        self._tasks = self._owned.group
        self._instances: dict[InstanceId, LocalInstance] = {}
        self._first_lines: dict[InstanceId, int] = {}
        self._revisions: dict[Key, tuple[RevisionSpec, int]] = {}
        self._degraded: set[Key] = set()
        self._locks: dict[Key, asyncio.Lock] = {}
        self._parts: dict[str, Part] = {}
        self._adopted = False
        self._early: dict[InstanceId, bool] = {}
        self._part_records = Records(state_dir / "parts", machine.boot())
        self._site = Site(
            workshop=Workshop(machine, platform_hash, policy or Policy()),
            tasks=self._tasks,
            emit=emit,
            retire=retire,
            make_sidecar=make_sidecar,
            records=Records(state_dir / "seats", machine.boot()),
            logs=self.logs,
            directory=directory,
            data_dir=state_dir / "data",
            runtime_dir=runtime_dir,
            inherited=base(os.environ if own_environment is None else own_environment, Path(sys.executable)),
            free=free,
            taken=self._taken,
            retire_deadline_s=retire_deadline_s,
            supply=supply,
            secret_files=SecretFiles(memory_folder(platform_hash, os.environ)),
            judge=self._judge,
            vacate=self._vacate,
        )

    async def __aenter__(self) -> Self:
        await self._owned.__aenter__()
        self._tasks.create_task(self.logs.keep_bounded())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for instance in self._instances.values():
            instance.leave()
        await self._owned.__aexit__(kind, error, trace)

    # --- what every target can do

    async def adopt(self) -> None:
        """Take over from the records and the processes that an earlier control left.

        What the data plane said of sidecars before is not lost: their streams may be back sooner.
        """
        found = adoption.look(self._site, self._part_records)
        revisions: dict[Key, tuple[RevisionSpec, int]] = {}
        for seat, _, _ in found.seats:
            if seat.attached:
                continue
            key = (seat.spec.module, seat.spec.revision)
            revisions[key] = (seat.spec, revisions.get(key, (seat.spec, 0))[1] + (not seat.stopping))
        self._revisions.update(revisions)
        for spec, count in revisions.values():
            self._emit(RevisionEnsured(spec, count))
        for seat, module, sidecar in found.seats:
            instance = self._instances[seat.instance] = LocalInstance(self._site, seat)
            instance.resume(module, sidecar)
        self._site.secret_files.sweep(self._instances)
        self._adopted = True
        for name, ready in self._early.items():
            self.sidecar_ready(name, ready)
        self._early.clear()
        if found.strays:
            self._tasks.create_task(strays.end(self._site.machine, found.strays, STRAYS_S))

    async def ensure(self, spec: RevisionSpec, count: int, around: str = "") -> None:  # noqa: ARG002
        key = (spec.module, spec.revision)
        async with self._locks.setdefault(key, asyncio.Lock()):
            if self._revisions.get(key) != (spec, count):
                self._revisions[key] = (spec, count)
                self._emit(RevisionEnsured(spec, count))
            kept = [one for one in self._of(key) if one.state != "stopping"]
            for surplus in sorted(kept, key=_first_to_go)[: max(0, len(kept) - count)]:
                surplus.begin_retiring()
            for _ in range(count - len(kept)):
                self._add(spec)
            await self._settled(self._of(key))

    async def retry(self, module: ModuleName, revision: RevisionId) -> None:
        failed = [one for one in self._of((module, revision)) if one.state == "failed"]
        async with asyncio.TaskGroup() as retries:
            for one in failed:
                retries.create_task(one.retry())

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        key = (module, revision)
        known = self._revisions.get(key)
        if known is None:
            return
        await self.ensure(known[0], 0)
        if self._revisions.get(key, (None, 0))[1] == 0 and self._revisions.pop(key, None) is not None:
            self._degraded.discard(key)
            self._locks.pop(key, None)
            self._emit(RevisionRemoved(module, revision))

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        if (known := self._instances.get(instance)) is not None:
            known.set_sidecar_ready(ready)
        elif not self._adopted:
            self._early[instance] = ready

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        return self.last_lines(instance, count)

    def last_lines(self, instance: InstanceId, count: int = 10) -> list[str]:
        return self.logs.last_lines(instance, count, self._first_lines.get(instance, 0))

    def instances(self) -> list[LocalInstance]:
        """Every instance that is there."""
        return list(self._instances.values())

    # --- instances that somebody else runs

    async def attach(self, spec: RevisionSpec, port: int) -> Instance:
        """Give a module that somebody else runs on loopback `port` a sidecar of its own, so that it is called
        and calls like every other. Its readiness is asked as declared. Raises `PartError` when the sidecar
        cannot be started."""
        taken = {one.seat.slot for one in self._instances.values() if one.seat.spec.module == spec.module}
        seat = attached_seat(self._site, spec, free_slots(1, taken)[0], port, time.time())
        self._begin(seat)
        instance = self._instances[seat.instance]
        await self._settled([instance])
        return instance.view()

    async def detach(self, instance: InstanceId) -> None:
        """Take its traffic away, drain and end its sidecar. Idempotent."""
        known = self._instances.get(instance)
        if known is not None and known.seat.attached:
            known.begin_retiring()
            await known.gone.wait()

    def attached(self) -> list[InstanceId]:
        return [one.seat.instance for one in self._instances.values() if one.seat.attached and not one.lent]

    async def lend(self, spec: RevisionSpec, by: str, holder: int) -> Instance:
        """A seat with ports and a sidecar, in which somebody starts the module themselves; it is theirs as long as
        process `holder` lives. Idempotent: a module has one such seat at most."""
        for known in self._instances.values():
            if known.lent and known.seat.spec.module == spec.module and known.state != "stopping":
                return known.view()
        seen = self._site.machine.look(holder)
        taken = {one.seat.slot for one in self._instances.values() if one.seat.spec.module == spec.module}
        occupant = Occupant(holder, seen.started if seen else 0)
        seat = lent_seat(self._site, spec, free_slots(1, taken)[0], time.time(), by, occupant)
        self._begin(seat)
        instance = self._instances[seat.instance]
        await self._settled([instance])
        return instance.view()

    def take(self, instance: InstanceId, pid: int, asking: int) -> None:
        """What was started in a lent seat. Raises `Refused` unless its holder says so."""
        known = self._instances.get(instance)
        if known is None:
            raise Refused(f"There is no {instance} (any more).")
        known.take(pid, asking)

    def over(self, instance: InstanceId) -> str:
        """Why a lent seat is to be given back; empty as long as it is in use."""
        known = self._instances.get(instance)
        return known.lent.over if known is not None and known.lent is not None else ""

    async def environment(
        self, spec: RevisionSpec, instance: InstanceId | None, *, reveal: bool
    ) -> list[Variable]:
        """What a module's process gets from the platform: as `instance` has it, else as far as it does not depend on
        one. With `reveal` values of secrets are asked for, and the files of a lent seat written."""
        known = self._instances.get(instance) if instance else None
        if known is None:
            return await shown(self._site, spec, None, reveal=reveal)
        return await shown(self._site, known.seat.spec, known.seat, reveal=reveal)

    # --- IDI's own processes

    async def run_part(self, spec: ProcessSpec, before_start: BeforeStart | None = None) -> Part:
        """Keep one of IDI's own processes running; adopts it where it runs already.

        `before_start` is awaited before each start (to write its files). Raises `PartError` when the
        first start fails.
        """
        if spec.name in self._parts:
            raise Bug(f"{spec.name} is kept already")
        part = Part(spec, self._site.workshop, self._part_records, self._emit, before_start)
        self._parts[spec.name] = part
        part.begin(self._tasks, self._part_records.read().get(spec.name))
        try:
            await part.launched()
        except PartError:
            await self.stop_part(spec.name)
            raise
        return part

    async def stop_part(self, name: str) -> None:
        """End one of IDI's own processes, also one that only a record of an earlier control names."""
        part = self._parts.pop(name, None)
        if part is not None:
            await part.stop()
        elif (record := self._part_records.read().get(name)) is not None:
            process = find(self._site.workshop, name, record)
            if process is not None:
                try:
                    await process.stop(DEFAULT_GRACE_S)
                finally:
                    process.forget()
            self._part_records.remove(name)

    def recorded_parts(self) -> list[str]:
        """Names of IDI's own processes that records name, kept by this target or not."""
        return list(self._part_records.read())

    # --- within

    def _of(self, key: Key) -> list[LocalInstance]:
        return [
            one for one in self._instances.values() if (one.seat.spec.module, one.seat.spec.revision) == key
        ]

    def _add(self, spec: RevisionSpec) -> None:
        taken = {one.seat.slot for one in self._instances.values() if one.seat.spec.module == spec.module}
        seat = new_seat(self._site, spec, free_slots(1, taken)[0], time.time())
        self._begin(seat)

    def _begin(self, seat: Seat) -> None:
        instance = LocalInstance(self._site, seat)
        # An earlier instance of the same name wrote into the same file: that is not this one's word.
        self._first_lines[seat.instance] = self.logs.file(seat.instance).end()
        instance.begin()
        self._instances[seat.instance] = instance

    async def _settled(self, instances: Iterable[LocalInstance]) -> None:
        """Wait until those that go are gone and the others were started."""
        failure: PartError | None = None
        for one in instances:
            if one.state == "stopping":
                await one.gone.wait()
                continue
            try:
                await one.launched()
            except PartError as error:
                failure = error
                await one.discard()
        if failure is not None:
            raise failure

    def _taken(self) -> set[int]:
        return {port for one in self._instances.values() for port in one.seat.every_port()}

    def _vacate(self, instance: InstanceId) -> None:
        spec = self._instances.pop(instance).seat.spec
        self._first_lines.pop(instance, None)
        self._judge(spec)

    def _judge(self, spec: RevisionSpec) -> None:
        """Tell when a revision begins or ceases to fail."""
        key = (spec.module, spec.revision)
        failing = [one.failing for one in self._of(key) if one.failing]
        if bool(failing) == (key in self._degraded):
            return
        if failing:
            self._degraded.add(key)
        else:
            self._degraded.discard(key)
        self._emit(RevisionDegraded(*key, failing[0] if failing else ""))


def _first_to_go(instance: LocalInstance) -> tuple[bool, float, int]:
    """Unready ones first, then the newest."""
    return (instance.state == "ready", -instance.seat.created, -instance.seat.slot)
