"""A push of some modules: what holds after it, made of what runs and of the declaration as it is now. Pure.

The named modules are as they are declared now, with what they alone need beside them (a new external, the type of an
event that nobody had before); everything else stays as it was applied last, whatever the file says of it by now.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from idi.declaration.frozen import Frozen
from idi.declaration.types import EventType, Module, ModuleName, Platform
from idi.plan.types import AwaitReady, Ensure, Plan
from idi.world.types import World


def pushed(running: Platform, declared: Platform, names: Collection[ModuleName]) -> Platform:
    """`names` are modules of `declared`."""
    modules = dict(running.modules)
    for name in names:
        modules[name] = declared.modules[name]
    others = [module for name, module in modules.items() if name not in names]
    externals = dict(running.externals)
    for call in {call for one in names for call in modules[one].calls} & {*declared.externals}:
        if call not in externals or not any(call in module.calls for module in others):
            externals[call] = declared.externals[call]
    used = {event for module in modules.values() for event in events_of(module)}
    events: dict[str, EventType] = {**declared.events, **running.events}
    return replace(
        running,
        modules=Frozen(modules),
        externals=Frozen(externals),
        events=Frozen({name: one for name, one in events.items() if name in used}),
    )


def events_of(module: Module) -> set[str]:
    return {*module.publishes, *module.handles, *module.consumes}


def reached(plan: Plan, world: World) -> set[str]:
    """The modules of which nothing changes but what is around their instances: who may reach them."""
    changes = {
        name: [step for step in steps if not isinstance(step, AwaitReady)]
        for name, steps in plan.lanes.items()
    }
    return {
        name
        for name, steps in changes.items()
        if steps and all(isinstance(step, Ensure) and _is_around(step, world) for step in steps)
    }


def _is_around(step: Ensure, world: World) -> bool:
    module = world.modules.get(step.spec.module)
    there = module.revisions.get(step.spec.revision) if module else None
    return (
        there is not None
        and there.around != step.around
        and there.count == step.count == step.was
        and not there.drift
    )
