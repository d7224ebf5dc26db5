"""World -> the documents that people and programs see. Pure: everything comes in as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from idi.api.types import (
    ConfigView,
    DriftView,
    FiguresView,
    InstanceView,
    ModuleConfigView,
    ModuleView,
    PartView,
    PlanView,
    RefusedView,
    RejectionView,
    StatusView,
    StepView,
    ValueView,
)
from idi.declaration.references import written
from idi.declaration.types import Module, ModuleName, Platform
from idi.parts.gateway.interface import Rejection
from idi.plan.bus import OWN
from idi.plan.describe import Described
from idi.plan.types import Desired, Overlays
from idi.world.types import Drift, Instance, ModuleWorld, Part, World

STATES = ("failed", "unready", "starting", "stopping", "ready")
"""Worst first: a module shows the worst state of its instances."""
NOTHING = World()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status needs beside the world."""

    environment: str
    target: str
    pid: int
    since: float
    version: str
    gateway_url: str
    console_url: str = ""
    changing: str = ""
    rejections: tuple[Rejection, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, FiguresView] = field(default_factory=dict)
    wants: Mapping[str, str] = field(default_factory=dict)
    """By instance that is not ready: what it cannot be ready without and does not get."""


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_view(
    platform: Platform | None, desired: Desired, world: World, around: Surroundings
) -> StatusView:
    names: list[ModuleName] = list(desired.modules)
    names += [name for name in world.modules if name not in desired.modules]
    # What came with the platform is a module to a target and a part of IDI to people.
    own = [name for name in names if name in OWN]
    views = {
        name: module_view(name, desired, world.modules.get(name, ModuleWorld()), around) for name in names
    }
    return {
        "platform": platform.name if platform else "",
        "env": around.environment,
        "target": around.target,
        "control": {"pid": around.pid, "since": rfc3339(around.since), "version": around.version},
        "gateway": {"url": around.gateway_url},
        "console": {"url": around.console_url or None},
        "changing": around.changing,
        "parts": [
            *(part_view(part) for part in world.parts.values() if part.state != "absent"),
            *(as_part(views[name]) for name in own),
        ],
        "modules": [routed(views[name], platform) for name in names if name not in OWN],
        "rejections": [rejection_view(r.node, r.resource, r.message, r.at) for r in around.rejections],
        "warnings": list(around.warnings),
    }


def rejection_view(node: str, resource: str, message: str, at: float) -> RejectionView:
    return {"node": node, "resource": resource, "message": message, "since": rfc3339(at)}


def part_view(part: Part) -> PartView:
    return {
        "name": part.name,
        "state": part.state,
        "since": rfc3339(part.since),
        "pid": part.pid,
        "reason": part.reason,
        "restarts": part.restarts,
    }


def as_part(module: ModuleView) -> PartView:
    """By its worst instance, as a module's line is."""
    instances = module["instances"]
    state = module["state"] if module["state"] != "stopping" else "unready"
    part: PartView = {
        "name": module["name"],
        "state": state,
        "since": module["since"],
        "pid": instances[0]["pid"] if instances else 0,
        "reason": module["reason"],
        "restarts": sum(one["restarts"] for one in instances),
        "instances": instances,
    }
    if "figures" in module:
        part["figures"] = module["figures"]
    return part


def module_view(name: ModuleName, desired: Desired, module: ModuleWorld, around: Surroundings) -> ModuleView:
    wanted = desired.modules.get(name)
    instances = sorted(module.instances.values(), key=lambda i: (len(i.id), i.id))
    ready = [i for i in instances if i.state == "ready"]
    current = wanted.spec.revision if wanted else ""
    # Of two that are as bad, the one that is wanted: what an earlier version suffered from is over.
    worst = min(instances, key=lambda i: (STATES.index(i.state), i.revision != current), default=None)
    count = wanted.count if wanted else 0
    if wanted and wanted.most and count:
        # An autoscaler says how many, within these bounds; what it said of the version before holds for this one.
        count = max(count, *(revision.scaled for revision in module.revisions.values()), 0)
    version = wanted.spec.version if wanted else next((r.spec.version for r in module.revisions.values()), "")
    state = worst.state if worst else ("ready" if count == 0 else "starting")
    refused = next((one.degraded for one in module.revisions.values() if one.degraded), "")
    if state == "ready" and len(ready) < count and refused:
        state = "starting"  # those that there are do; the target can make no more of them
    document: ModuleView = {
        "name": name,
        "version": version,
        "desired": count,
        "ready": len(ready),
        "state": state,
        "since": rfc3339(worst.since if worst else around.since),
        "reason": trouble(worst, module, current, around)
        if worst
        else ""
        if count == 0
        else refused or "not started yet",
        "instances": [instance_view(i, around) for i in instances],
    }
    if wanted and wanted.most:
        document["scale"] = {"least": wanted.count, "most": wanted.most}
    figures = around.figures.get(name)
    if figures is not None:
        document["figures"] = figures
    return document


def routed(view: ModuleView, platform: Platform | None) -> ModuleView:
    declared = platform.modules.get(ModuleName(view["name"])) if platform else None
    if declared is not None:
        view["routes"] = [route.path for route in declared.routes]
    return view


def trouble(worst: Instance, module: ModuleWorld, current: str, around: Surroundings) -> str:
    """Why a module is not well, and that it answers all the same where only its new version does not."""
    revision = module.revisions.get(worst.revision)
    text = (revision.degraded if revision else "") or reason(worst, around)
    others = (i for i in module.instances.values() if i.state == "ready" and i.revision != current)
    new = worst.state != "ready" and worst.revision == current
    return f"the new version: {text}; the former one serves" if text and new and any(others) else text


def reason(instance: Instance, around: Surroundings) -> str:
    """Why it is not ready."""
    return "; ".join(text for text in (instance.reason, around.wants.get(instance.id)) if text)


def instance_view(instance: Instance, around: Surroundings) -> InstanceView:
    view: InstanceView = {
        "id": instance.id,
        "address": address_of(instance),
        "state": instance.state,
        "since": rfc3339(instance.since),
        "pid": instance.pid,
        "sidecar_pid": instance.sidecar_pid,
        "revision": instance.revision,
        "restarts": instance.restarts,
        "reason": reason(instance, around),
    }
    if instance.by:
        view["by"] = instance.by
    if instance.node:
        view["node"] = instance.node
    return view


def address_of(instance: Instance) -> str:
    """Where it listens: on a laptop itself, in a pod, where nobody else reaches that, its sidecar for it."""
    if instance.node:
        host = f"[{instance.address}]" if ":" in instance.address else instance.address
        return f"{host}:{next(iter(instance.mesh.values()), 0)}" if host else ""
    port = next(iter(instance.ports.values()), 0)
    return f"127.0.0.1:{port}" if instance.supervised else f"{instance.address}:{port}"


def step_view(step: Described) -> StepView:
    return {
        "module": step.lane,
        "kind": step.kind,
        "symbol": step.symbol,
        "text": step.text,
        "reason": step.reason,
    }


def plan_view(
    steps: Iterable[Described],
    origins: Mapping[str, str],
    warnings: Iterable[str],
    world: World = NOTHING,
    refused: Iterable[RefusedView] = (),
) -> PlanView:
    return {
        "steps": [step_view(step) for step in steps],
        "origins": dict(origins),
        "warnings": list(warnings),
        "drift": [
            drift_view(name, one)
            for name, module in world.modules.items()
            for revision in module.revisions.values()
            for one in revision.drift
        ],
        "refused": list(refused),
    }


def drift_view(module: str, drift: Drift) -> DriftView:
    return {
        "module": module,
        "object": drift.object,
        "field": drift.field,
        "declared": drift.declared,
        "there": drift.there,
        "manager": drift.manager,
        "left": drift.left,
    }


def config_view(platform: Platform, overlays: Overlays) -> ConfigView:
    """Of a declaration with what was set laid over it, and nothing that comes with the platform."""
    return {
        "modules": [
            module_config_view(module, platform, overlays.versions.get(module.name, 0))
            for module in platform.modules.values()
        ]
    }


def module_config_view(module: Module, platform: Platform, version: int) -> ModuleConfigView:
    values: list[ValueView] = [
        {"name": name, "value": written(value), "origin": origin_of(platform, f"{module.name}.config.{name}")}
        for name, value in module.config.items()
    ]
    values += [
        {"name": name, "value": None, "origin": origin_of(platform, f"{module.name}.secrets.{name}")}
        for name in module.secrets
    ]
    return {"module": module.name, "version": version, "values": sorted(values, key=lambda one: one["name"])}


def origin_of(platform: Platform, path: str) -> str:
    """Where a value of a module comes from; a line that belongs to one environment says to which."""
    origin = platform.origins.get(f"modules.{path}")
    if origin is None:
        return "default"
    return f"{origin} ({platform.environment})" if origin.kind == "environment" else str(origin)
