"""Instances that somebody runs themselves (`idi run`): lent a seat, handed over to, given back.

Three changes, each in the journal. `run` makes the seat; its environment goes to whoever asked, and they start the
module. Once that is ready `hand-over` takes one of ours away, and when it is over `give-back` brings ours back before
the seat goes. The last two nobody has to ask for: here is looked, level-based like everything, whether they are due,
so a command that was killed, or a control that was, leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from idi.api.types import ChangeRequest, EnvironmentView, RunView
from idi.control.actors import CONTROL
from idi.control.change.wanted import Wanted
from idi.control.loop import Loop
from idi.declaration.types import ModuleName
from idi.parts.errors import Refused
from idi.parts.store.interface import Actor, Store
from idi.parts.targets.interface import Lending
from idi.plan.types import Run
from idi.world.types import Instance, InstanceId, ModuleWorld, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

LENT = RevisionId("lent")
AGAIN_S = 5.0
"""A change that failed is tried again after this time."""
LOOK_S = 1.0


@dataclass(slots=True)
class Runs:
    """`wanted` is what holds now, `idle` says that no change is being made, `ask` makes one."""

    target: Lending
    loop: Loop
    store: Store
    wanted: Callable[[], Wanted]
    idle: Callable[[], bool]
    ask: Callable[[ChangeRequest, Actor], Awaitable[bool]]
    _asked: set[ModuleName] = field(default_factory=set)

    async def lend(self, spec: RevisionSpec, run: Run) -> None:
        await self.target.lend(replace(spec, revision=LENT, command=""), run.by, run.pid)

    def started(self, instance: str, pid: int, asking: int) -> None:
        self.target.take(InstanceId(instance), pid, asking)

    # --- what is due

    async def keep(self, tasks: asyncio.TaskGroup) -> None:
        """Ask for what is due, until cancelled."""
        while True:
            if self.idle() and self.wanted().up:
                for name, request in list(self._due()):
                    if name not in self._asked:
                        self._asked.add(name)
                        tasks.create_task(self._ask(name, request))
            await self.loop.next_change(LOOK_S if self._any() else 60.0)

    async def _ask(self, name: ModuleName, request: ChangeRequest) -> None:
        try:
            if not await self.ask(request, CONTROL):
                await asyncio.sleep(AGAIN_S)
        finally:
            self._asked.discard(name)
            self.loop.wake()

    def _any(self) -> bool:
        return bool(self.wanted().overlays.runs) or any(one.by for one in self.loop.world.instances())

    def _due(self) -> Iterator[tuple[ModuleName, ChangeRequest]]:
        runs = self.wanted().overlays.runs
        for name, run in runs.items():
            lent = self._lent(name)
            over = self.target.over(lent.id) if lent else "its seat is gone"
            if over:
                yield name, {"action": "give-back", "module": name, "why": over}
            elif lent and lent.state == "ready" and not run.standing:
                yield name, {"action": "hand-over", "module": name}
        for one in self.loop.world.instances():  # a journal that was set aside knows of no run
            if one.by and one.module not in runs and (over := self.target.over(one.id)):
                yield one.module, {"action": "give-back", "module": one.module, "why": over}

    def _lent(self, name: ModuleName) -> Instance | None:
        module = self.loop.world.modules.get(name, ModuleWorld())
        return next((i for i in module.instances.values() if i.by and i.state != "stopping"), None)

    # --- for whoever runs it

    async def follow(self, instance: str) -> AsyncGenerator[RunView]:
        """How it does, again whenever that changes, until it is given back."""
        last: RunView | None = None
        name = ModuleName(instance.rpartition("-")[0])
        while True:
            view = self._view(name, instance)
            if view != last:
                yield view
                last = view
            if view["ended"]:
                return
            await self.loop.next_change(LOOK_S)

    def _view(self, name: ModuleName, instance: str) -> RunView:
        wanted = self.wanted()
        module, run = self.loop.world.modules.get(name, ModuleWorld()), wanted.overlays.runs.get(name)
        lent = module.instances.get(InstanceId(instance))
        gone = lent is None or not lent.by
        return {
            "module": name,
            "instance": instance,
            "by": lent.by if lent else "",
            "state": lent.state if lent else "gone",
            "reason": lent.reason if lent else "",
            "standing": bool(run and run.standing and name not in self._asked),
            "over": self.target.over(InstanceId(instance)),
            "ready": sum(i.state == "ready" and i.supervised for i in module.instances.values()),
            "ended": gone and (not wanted.up or (self.idle() and name not in self._asked)),
            "down": not wanted.up,
        }

    async def environment(
        self, spec: RevisionSpec, instance: str, actor: Actor, pid: int, *, reveal: bool
    ) -> EnvironmentView:
        """The variables of a module as one of its instances has them: the one that was named, else the first that is
        ready. Whoever is shown secrets is in the journal before, but for the one who runs that instance (`pid`) and is
        there already."""
        module = self.loop.world.modules.get(spec.module, ModuleWorld())
        there = sorted(module.instances.values(), key=lambda i: (i.state != "ready", not i.supervised, i.id))
        chosen = next(
            (i for i in there if i.id == instance or (not instance and (i.supervised or i.by))), None
        )
        if instance and chosen is None:
            raise Refused(f"{spec.module} has no instance {instance}.", "idi status --json lists them.")
        run = self.wanted().overlays.runs.get(spec.module)
        own = run is not None and run.pid == pid and chosen is not None and bool(chosen.by)
        if reveal and not own:
            await self.store.note(actor, "reveal", {"secrets": sorted(spec.secrets)}, subject=spec.module)
        found = await self.target.environment(spec, chosen.id if chosen else None, reveal=reveal)
        return {
            "module": spec.module,
            "instance": chosen.id if chosen else None,
            "variables": [{"name": v.name, "value": v.value, "secret": v.secret} for v in found],
        }
