"""The life of one instance: a module's process and its sidecar in one seat, told as events.

It is ready when the module answers as declared and the data plane says that the sidecar has all its
listeners. Facts are told first and written down after: the record on disk is for the next control and
never in the way of the path from a death to the proxies.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from idi.parts.errors import PartError, Refused
from idi.parts.targets.interface import Unsupplied
from idi.parts.targets.local.lent import Lent, Standing
from idi.parts.targets.local.probes import make_probe
from idi.parts.targets.local.process import Process, ProcessSpec
from idi.parts.targets.local.roles import Role
from idi.parts.targets.local.seating import asked, claim_ports, module_process, sidecar_process
from idi.parts.targets.local.seats import Occupant, Seat, encode
from idi.parts.targets.local.secrets import NOTHING, Supplied, supplied
from idi.parts.targets.local.site import Site
from idi.parts.targets.local.strays import end, marked_now
from idi.parts.targets.local.supervisor import LEFTOVERS_S, Supervisor
from idi.parts.targets.readiness import Verdict, watch
from idi.world.events import (
    InstanceDied,
    InstanceFailed,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    InstanceStopping,
    InstanceUnready,
)
from idi.world.types import Instance, InstanceState

SAVE_AFTER_S = 0.05
TELL_EVERY_S = 1.0
"""While it starts, a changed reason is told this often at most."""

_log = logging.getLogger(__name__)


class LocalInstance:
    def __init__(self, site: Site, seat: Seat) -> None:
        self.seat = seat
        self.state: InstanceState = "starting"
        self.gone = asyncio.Event()
        self.failing = ""
        self._site = site
        self._since = time.time()
        self._reason = ""
        self._module_ready = False
        self._been_ready = seat.ready
        self._sidecar_ready = False
        self._bare = False
        self._looping: set[str] = set()
        self._give_up_at = 0.0
        self._told_at = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._supplied = NOTHING
        module = Role(
            prepare=self._prepare_module,
            spawning=lambda: self._spawning(self.seat.module),
            started=self._module_started,
            died=self._module_died,
            looping=partial(self._loops, "module"),
            steady=partial(self._steady, "module"),
        )
        sidecar = Role(
            prepare=self._prepare_sidecar,
            spawning=lambda: self._spawning(self.seat.sidecar),
            started=self._sidecar_started,
            died=self._sidecar_died,
            looping=partial(self._loops, "sidecar"),
            steady=partial(self._steady, "sidecar"),
        )
        self._module = Supervisor(module, site.workshop, self._gather)
        self._sidecar = Supervisor(sidecar, site.workshop)
        self.lent = Lent(site.machine, seat, site.tasks, self._lent_changed) if seat.by else None

    # --- what the target asks of it

    def begin(self) -> None:
        """Start both processes, or the sidecar alone where somebody else runs the module. Raises
        `PartError` when that cannot be recorded."""
        # Both starts are recorded as intended at once: one write before, one soon after.
        self.seat.module.pending = not self.seat.attached
        self.seat.sidecar.pending = True
        self.save()
        if self.lent is not None:
            self.lent.begin()
        if self.seat.attached:
            self._probe(self._attached_for_s)
        else:
            self._module.begin(self._site.tasks)
        self._sidecar.begin(self._site.tasks)

    async def launched(self) -> None:
        """Wait until both have been started; raises `PartError` if one cannot be."""
        if not self.seat.attached:
            await self._module.launched()
        await self._sidecar.launched()

    def resume(self, module: Process | None, sidecar: Process | None) -> None:
        """Go on from a record: processes that still live, None for one that does not."""
        seat = self.seat
        if (
            seat.ready
            and ((seat.attached and self.lent is None) or module is not None)
            and (sidecar is not None or not seat.sidecar.pid)
        ):
            self.state, self._module_ready, self._sidecar_ready = "ready", True, True
            self._since = seat.since
        if seat.attached:
            self._probe(self._attached_for_s)
            if self.lent is not None:
                self.lent.begin(module)
        else:
            self._module.begin(
                self._site.tasks,
                adopted=module,
                died=_meanwhile(seat.module, module),
                grace_s=seat.spec.grace_s,
            )
        self._sidecar.begin(self._site.tasks, adopted=sidecar, died=_meanwhile(seat.sidecar, sidecar))
        self._seen()
        if module is not None and not seat.attached:
            self._probe(module.up_s)
        if seat.stopping:
            self.begin_retiring()

    async def retry(self) -> None:
        """Forget that it failed, and start at once what does not work of it."""
        self._looping.clear()
        self._give_up_at = 0.0
        self._recover()
        self._become("starting", "is tried again")
        self._seen()
        if not self._module_ready and not self.seat.attached:
            await self._module.retry("was restarted: it is tried again")
        if self._sidecar.process is None and not self._bare:
            await self._sidecar.retry("")

    def begin_retiring(self) -> None:
        """Its end is decided: it goes on by itself, whoever asked for it."""
        if self.state != "stopping" and not self.gone.is_set():
            self._become("stopping")
            self.seat.stopping = True
            self._site.emit(InstanceStopping(self.seat.spec.module, self.seat.instance, self._since))
            self._save_soon()
            self._module.hold()
            self._sidecar.hold()
            self._stop_probing()
            self._site.tasks.create_task(self._retire())

    async def discard(self) -> None:
        """End it at once: it could not be started, so nothing was ever sent to it."""
        self._become("stopping")
        self._stop_probing()
        await self._end()

    def set_sidecar_ready(self, ready: bool) -> None:
        if self._bare:
            return
        self._sidecar_ready = ready and self._sidecar.process is not None
        self._settle("its sidecar has lost its listeners" if not ready else self._reason)

    def leave(self) -> None:
        """Stop watching."""
        if self._saving is not None:
            self._saving.cancel()
            self._save()
        if self.lent is not None:
            self.lent.leave()

    def take(self, pid: int, asking: int) -> None:
        """The command of whom it is lent to was started."""
        if self.lent is None:
            raise Refused(f"{self.seat.instance} is lent to nobody.")
        self.lent.command(pid, asking)
        self._seen()
        self._save_soon()

    def view(self) -> Instance:
        """The instance as the world knows it."""
        seat = self.seat
        return Instance(
            id=seat.instance,
            module=seat.spec.module,
            revision=seat.spec.revision,
            state=self.state,
            address="127.0.0.1",
            ports=dict(seat.ports),
            mesh=dict(seat.mesh),
            outbound=dict(seat.outbound),
            since=self._since,
            pid=self._module.pid if self.lent is None else self.seat.module.pid,
            sidecar_pid=self._sidecar.pid,
            restarts=seat.restarts,
            reason=self._reason,
            supervised=not seat.attached,
            by=seat.by,
        )

    # --- what its processes tell

    async def _prepare_module(self) -> ProcessSpec:
        await claim_ports(self._site, self.seat, "module")
        secrets, self._supplied = self._supplied, NOTHING  # from here on the process alone has them
        return module_process(self._site, self.seat, secrets)

    async def _prepare_sidecar(self) -> ProcessSpec | None:
        changed = await claim_ports(self._site, self.seat, "sidecar")
        if "outbound" in changed and self._module.process is not None:
            self._site.tasks.create_task(self._restart("was restarted: the ports of its sidecar changed"))
        sidecar = self._site.make_sidecar(self.view())
        if sidecar is None:
            self._bare = self._sidecar_ready = True
            self.seat.sidecar.pending = False
            self._save_soon()
            self._settle("")
            return None
        return sidecar_process(self._site, self.seat, sidecar)

    def _spawning(self, occupant: Occupant) -> None:
        if not occupant.pending:
            again = occupant.pid != 0
            occupant.pending = True
            if again:
                self._save_or_warn()  # on a full disk what crashed starts again: its marker still names it
            else:
                self.save()

    def started(self, occupant: Occupant, process: Process) -> Occupant:
        self.seat.restarts += occupant.pid != 0
        if self.state != "stopping":
            self._become("failed" if self.failing else "starting", self.failing)
        return Occupant(process.pid, process.started)

    def _module_started(self, process: Process) -> None:
        self.seat.module = self.started(self.seat.module, process)
        self._seen()
        self._probe(process.up_s)
        self._save_soon()

    def _sidecar_started(self, process: Process) -> None:
        self.seat.sidecar = self.started(self.seat.sidecar, process)
        self._seen()
        self._save_soon()

    def died(self, reason: str) -> None:
        if self.state == "stopping":
            return
        self._become("starting", reason)
        self._site.emit(InstanceDied(self.seat.spec.module, self.seat.instance, self._since, reason))
        self._save_soon()

    def _module_died(self, reason: str) -> None:
        self._module_ready = False
        self.died(reason)
        self._stop_probing()

    def _sidecar_died(self, reason: str) -> None:
        self._sidecar_ready = False
        self.died(f"its sidecar {reason}")

    def _loops(self, role: str, reason: str) -> None:
        if self.state != "stopping":
            self._looping.add(role)
            self._fail(reason)

    def _steady(self, role: str) -> None:
        self._looping.discard(role)
        if self.state == "ready" and not self._looping:
            self._recover()

    def save(self) -> None:
        self._site.records.write(self.seat.instance, encode(self.seat))

    # --- within

    def _attached_for_s(self) -> float:
        return max(0.0, time.time() - self.seat.created)

    def _probe(self, up_s: Callable[[], float]) -> None:
        self._stop_probing()
        self._give_up_at = 0.0
        self._probing = self._site.tasks.create_task(self._watch(up_s))

    async def _watch(self, up_s: Callable[[], float]) -> None:
        readiness, secrets = self.seat.spec.readiness, NOTHING
        while readiness.command and (
            self.lent or not self.seat.attached
        ):  # it runs in the module's environment
            try:
                secrets = await self._secrets()
                break
            except Unsupplied:
                await asyncio.sleep(TELL_EVERY_S)
        where = asked(self._site, self.seat, secrets)
        what, probe = make_probe(readiness, where)
        if self.lent is not None:
            # It may stand at a breakpoint before it is ready, too.
            readiness = replace(readiness, deadline_s=math.inf)
            port = where.ports.get(readiness.port, 0)
            probe = Standing(probe, port, self._site.free, lambda: self._been_ready)
        await watch(readiness, what, probe, self._judged, up_s=up_s, ready=self._module_ready)

    async def _gather(self) -> None:
        self._supplied = await self._secrets()

    async def _secrets(self) -> Supplied:
        return await supplied(self._site.supply, self._site.secret_files, self.seat.instance, self.seat.spec)

    def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    def _lent_changed(self) -> None:
        """It is over, or half of it is: what answers goes on answering until it is let go."""
        if self.lent is not None and self.lent.over and not self.lent.serves:
            self._stop_probing()
            self._module_ready = False
            self._settle(self.lent.over)
        if self.state != "stopping":
            self._seen()

    def _judged(self, verdict: Verdict) -> None:
        self._module_ready = verdict.ready
        self._been_ready = self._been_ready or verdict.ready
        if verdict.missed and self.state != "stopping":
            now = asyncio.get_running_loop().time()
            late = f"not ready within {self.seat.spec.readiness.deadline_s:g}s: {verdict.reason}"
            if not self._give_up_at:
                self._give_up_at = now + self._site.workshop.policy.longest_s
                self._fail(late)
            elif now >= self._give_up_at:
                self._give_up_at = now + self._site.workshop.policy.longest_s
                if not self.seat.attached:
                    self._site.tasks.create_task(self._restart(f"was restarted: {late}"))
        self._settle(verdict.reason)

    def _settle(self, reason: str) -> None:
        """Tell whether it is ready, if that changed."""
        if self.state == "stopping":
            return
        spec, instance = self.seat.spec, self.seat.instance
        if self._module_ready and self._sidecar_ready:
            if self.state != "ready":
                self._become("ready")
                self._site.emit(InstanceReady(spec.module, instance, self._since))
                if not self._looping:
                    self._recover()
                self._save_soon()
        elif self.state == "ready":
            self._become("unready", reason)
            self._site.emit(InstanceUnready(spec.module, instance, self._since, reason))
            self._save_soon()
        elif self.seat.attached or self._module.process is not None:
            if self._module_ready:
                reason = "waiting for its sidecar"
            now = asyncio.get_running_loop().time()
            if self.state != "failed" and reason != self._reason and now - self._told_at >= TELL_EVERY_S:
                self._reason = reason
                self._seen()

    def _fail(self, reason: str) -> None:
        self._become("failed", reason)
        self.failing = reason
        self._site.emit(InstanceFailed(self.seat.spec.module, self.seat.instance, self._since, reason))
        self._site.judge(self.seat.spec)

    def _recover(self) -> None:
        if self.failing:
            self.failing = ""
            self._site.judge(self.seat.spec)

    def _become(self, state: InstanceState, reason: str = "") -> None:
        self.state, self._reason, self._since = state, reason, time.time()
        self.seat.ready, self.seat.since = state == "ready", self._since

    def _seen(self) -> None:
        self._told_at = asyncio.get_running_loop().time()
        self._site.emit(InstanceSeen(self.view()))

    async def _restart(self, reason: str) -> None:
        try:
            await self._module.restart(reason)
        except PartError as error:  # it does not die; whoever looks sees why it is not ready
            _log.warning("%s: %s", self.seat.instance, error)

    async def _retire(self) -> None:
        try:
            async with asyncio.timeout(self._site.retire_deadline_s):
                if self.lent is None or self._been_ready:  # else nothing was ever sent to it
                    await self._site.retire(self.view())
        except (TimeoutError, PartError) as error:
            _log.warning(
                "%s is stopped although it was not drained: %s", self.seat.instance, error or "too slow"
            )
        await self._end()

    async def _end(self) -> None:
        if self.lent is not None:
            await self.lent.end(self.seat.spec.grace_s)
        for supervisor in (self._module, self._sidecar):
            try:
                await supervisor.stop()
            except PartError as error:
                _log.warning("%s: %s", self.seat.instance, error)
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        self._site.secret_files.remove(self.seat.instance)
        try:
            everything = await marked_now(self._site.machine, self._site.platform_hash)
            daemons = [one for one in everything if one.name == self.seat.instance]
            await end(self._site.machine, daemons, LEFTOVERS_S)
            self._site.records.remove(self.seat.instance)
        except PartError as error:  # it says that this one is stopping, so the next control finishes it
            _log.warning("%s", error)
        self.gone.set()
        self._site.vacate(self.seat.instance)
        self._site.emit(InstanceGone(self.seat.spec.module, self.seat.instance, time.time()))

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_AFTER_S, self._save)

    def _save(self) -> None:
        self._saving = None
        self._save_or_warn()

    def _save_or_warn(self) -> None:
        try:
            self.save()
        except PartError as error:
            _log.warning("%s", error)


def _meanwhile(occupant: Occupant, process: Process | None) -> str:
    if process is not None:
        return ""
    if occupant.pid:
        return "ended while control was not running"
    return "had not started yet when control ended" if occupant.pending else ""
