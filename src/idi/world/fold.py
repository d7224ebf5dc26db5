"""Folding events into the world.

`fold` is the only way the world changes. It answers the new world together with the modules whose
traffic may have changed ("dirty"), so that one event costs one module's worth of work downstream. An
event about an instance or revision that is not there is ignored and marks nothing dirty: facts arrive
late (a probe's answer after the instance went), and a late fact must never resurrect anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from idi.declaration.types import ModuleName
from idi.world.events import (
    Event,
    InstanceDied,
    InstanceFailed,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    InstanceStopping,
    InstanceUnready,
    PartChanged,
    RevisionAnew,
    RevisionDegraded,
    RevisionDrifted,
    RevisionEnsured,
    RevisionRemoved,
    RevisionScaled,
    SharesSet,
)
from idi.world.types import Instance, InstanceState, ModuleWorld, Part, Revision, World

Dirty = frozenset[ModuleName]
NOTHING: Dirty = frozenset()

K = TypeVar("K")
V = TypeVar("V")


def fold(world: World, event: Event) -> tuple[World, Dirty]:
    """The world after `event`, and the modules whose traffic must be computed again."""
    match event:
        case PartChanged():
            return _part(world, event), NOTHING
        case RevisionEnsured(spec=spec, count=count, around=around):
            module = world.modules.get(spec.module, ModuleWorld())
            before = module.revisions.get(spec.revision)
            kept = before or Revision(spec, count)
            revision = replace(kept, spec=spec, count=count, around=around, drift=())
            changed = replace(module, revisions=with_item(module.revisions, spec.revision, revision))
            return _put(world, spec.module, changed), frozenset({spec.module})
        case RevisionRemoved(module=name, revision=revision_id):
            module = world.modules.get(name, ModuleWorld())
            changed = replace(
                module,
                revisions=without(module.revisions, revision_id),
                shares=without(module.shares, revision_id),
            )
            return _put(world, name, changed), frozenset({name})
        case RevisionDegraded(reason=reason):
            return _revision(world, event, degraded=reason), NOTHING
        case RevisionScaled(count=count):
            return _revision(world, event, scaled=count), NOTHING
        case RevisionDrifted(drift=drift):
            return _revision(world, event, drift=drift), NOTHING
        case RevisionAnew(under_way=under_way):
            return _revision(world, event, anew=under_way), NOTHING
        case SharesSet(module=name, shares=shares):
            module = world.modules.get(name, ModuleWorld())
            return _put(world, name, replace(module, shares=dict(shares))), frozenset({name})
        case InstanceSeen(instance=instance):
            return _set_instance(world, instance), frozenset({instance.module})
        case InstanceGone(module=name, instance=instance_id):
            module = world.modules.get(name, ModuleWorld())
            if instance_id not in module.instances:
                return world, NOTHING
            changed = replace(module, instances=without(module.instances, instance_id))
            return _put(world, name, changed), frozenset({name})
        case InstanceReady():
            return _state(world, event, "ready", "")
        case InstanceUnready(reason=reason):
            return _state(world, event, "unready", reason)
        case InstanceStopping():
            return _state(world, event, "stopping", "")
        case InstanceDied(reason=reason):
            return _state(world, event, "starting", reason)
        case InstanceFailed(reason=reason):
            return _state(world, event, "failed", reason)


def fold_all(world: World, events: Iterable[Event]) -> tuple[World, Dirty]:
    """`fold` over several events: the last world and everything that became dirty on the way."""
    dirty: set[ModuleName] = set()
    for event in events:
        world, more = fold(world, event)
        dirty |= more
    return world, frozenset(dirty)


def with_item(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    return {**mapping, key: value}


def without(mapping: Mapping[K, V], key: K) -> dict[K, V]:
    return {k: v for k, v in mapping.items() if k != key}


def _put(world: World, name: ModuleName, module: ModuleWorld) -> World:
    if not module.revisions and not module.instances and not module.shares:
        return replace(world, modules=without(world.modules, name))
    return replace(world, modules=with_item(world.modules, name, module))


def _revision(
    world: World,
    event: RevisionDegraded | RevisionScaled | RevisionDrifted | RevisionAnew,
    **changes: Any,
) -> World:
    module = world.modules.get(event.module, ModuleWorld())
    known = module.revisions.get(event.revision)
    if known is None:
        return world
    revisions = with_item(module.revisions, event.revision, replace(known, **changes))
    return _put(world, event.module, replace(module, revisions=revisions))


def _set_instance(world: World, instance: Instance) -> World:
    module = world.modules.get(instance.module, ModuleWorld())
    instances = with_item(module.instances, instance.id, instance)
    return _put(world, instance.module, replace(module, instances=instances))


def _state(
    world: World,
    event: InstanceReady | InstanceUnready | InstanceStopping | InstanceDied | InstanceFailed,
    state: InstanceState,
    reason: str,
) -> tuple[World, Dirty]:
    module = world.modules.get(event.module)
    known = module.instances.get(event.instance) if module else None
    if known is None:
        return world, NOTHING
    if known.state == "stopping":  # chosen to go: nothing brings it back but a new InstanceSeen
        return world, NOTHING
    restarts = known.restarts + 1 if isinstance(event, InstanceDied) else known.restarts
    since = known.since if known.state == state else event.at
    changed = replace(known, state=state, since=since, reason=reason, restarts=restarts)
    served = known.state == "ready" or state == "ready"
    return _set_instance(world, changed), frozenset({event.module}) if served else NOTHING


def _part(world: World, event: PartChanged) -> World:
    known = world.parts.get(event.name)
    since = known.since if known and known.state == event.state else event.at
    restarts = known.restarts if known else 0
    if known and event.pid and known.pid and event.pid != known.pid:
        restarts += 1
    part = Part(event.name, event.state, since, event.pid, event.reason, restarts)
    return replace(world, parts=with_item(world.parts, event.name, part))
