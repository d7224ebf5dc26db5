"""Small platforms and worlds for tests, and the effect of a plan's steps on a world.

`perform` is the simplest thing that does what a step says: it is what property tests hold the plan
against ("applying a plan leaves no plan").
"""

from __future__ import annotations

from dataclasses import replace

from idi.declaration.types import ModuleName, Readiness
from idi.plan.types import AwaitReady, Detach, Ensure, Lend, Remove, Retry, StartPart, Step, StopPart
from idi.world.events import (
    Event,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    PartChanged,
    RevisionEnsured,
    RevisionRemoved,
)
from idi.world.fold import fold_all
from idi.world.types import Instance, InstanceId, ModuleWorld, PortSpec, RevisionId, RevisionSpec, World


def spec(module: str, revision: str, *, storage: bool = False, command: str = "run") -> RevisionSpec:
    return RevisionSpec(
        module=ModuleName(module),
        revision=RevisionId(revision),
        version="dev",
        command=command,
        directory="/",
        environment={},
        ports=(PortSpec("http", "http"),),
        peers=(),
        readiness=Readiness(),
        grace_s=1.0,
        storage=storage,
    )


def instance(module: str, slot: int, revision: str, state: str = "ready", base: int = 20000) -> Instance:
    offset = (sum(map(ord, module)) % 97) * 60 + slot * 3
    return Instance(
        id=InstanceId(f"{module}-{slot}"),
        module=ModuleName(module),
        revision=RevisionId(revision),
        state=state,  # type: ignore[arg-type]
        address="127.0.0.1",
        ports={"http": base + offset},
        mesh={"http": base + offset + 1},
        outbound={},
        since=0.0,
    )


def perform(world: World, step: Step, now: float = 1.0) -> World:
    """The world after the step was done."""
    world, _ = fold_all(world, consequences(world, step, now))
    return world


def consequences(world: World, step: Step, now: float) -> list[Event]:
    match step:
        case StartPart(name):
            return [PartChanged(name, "ready", now, pid=1)]
        case StopPart(name):
            return [PartChanged(name, "absent", now)]
        case Ensure(wanted, count):
            module = world.modules.get(wanted.module, ModuleWorld())
            mine = [i for i in module.instances.values() if i.revision == wanted.revision]
            events: list[Event] = [RevisionEnsured(wanted, count, step.around)]
            taken = {i.id for i in module.instances.values()}
            slot = 0
            for _ in range(count - len(mine)):
                slot += 1
                while f"{wanted.module}-{slot}" in taken:
                    slot += 1
                new = instance(wanted.module, slot, wanted.revision, "starting")
                events.append(InstanceSeen(replace(new, since=now)))
            # As every target does it: what is not ready goes first.
            for gone in sorted(mine, key=lambda i: i.state != "ready")[count:]:
                events.append(InstanceGone(wanted.module, gone.id, now))
            return events
        case Retry(name, revision):
            module = world.modules.get(name, ModuleWorld())
            return [
                InstanceSeen(replace(i, state="starting", since=now))
                for i in module.instances.values()
                if i.revision == revision and i.state == "failed"
            ]
        case Lend(wanted, run):
            name = wanted.module
            slots = {i.id for i in world.modules.get(name, ModuleWorld()).instances.values()}
            slot = next(n for n in range(1, 100) if f"{name}-{n}" not in slots)
            lent = replace(instance(name, slot, "lent", "starting"), supervised=False, by=run.by)
            return [InstanceSeen(lent)]
        case Detach(name, gone_id):
            return [InstanceGone(name, gone_id, now)]
        case AwaitReady(name, revision):
            module = world.modules.get(name, ModuleWorld())
            return [
                InstanceReady(name, i.id, now)
                for i in module.instances.values()
                if i.revision == revision and i.state != "ready"
            ]
        case Remove(name, revision):
            module = world.modules.get(name, ModuleWorld())
            gone_too: list[Event] = [
                InstanceGone(name, i.id, now) for i in module.instances.values() if i.revision == revision
            ]
            return [*gone_too, RevisionRemoved(name, revision)]
