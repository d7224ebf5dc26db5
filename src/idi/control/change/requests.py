"""What a request asks for: the desired state that it leads to, or why that cannot be.

Nothing is changed here. The answer is computed once when somebody asks, so that what cannot be is refused before
anything is begun, and once more when it is its turn, on what is then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from idi.api.problems import Invalid
from idi.api.types import ChangeRequest
from idi.control.change.configuration import reconfigured
from idi.control.change.pushes import asked_push, told
from idi.control.change.wanted import Wanted
from idi.control.trust import rotation
from idi.control.trust.secrets import NewSecret, able, asked_secret
from idi.control.wording import did_you_mean
from idi.declaration.load import Rejected
from idi.declaration.types import ExternalIssuer, KubernetesTarget, ModuleName, Platform
from idi.parts.errors import Refused
from idi.parts.store.interface import JSON
from idi.plan.applicable import Applicable, applicable
from idi.plan.bus import BUS, OWN, logs_in
from idi.plan.configured import fitted
from idi.plan.desired import strategy_of
from idi.plan.room import lacking
from idi.plan.scaled import fitting
from idi.plan.types import Overlays, Run
from idi.plan.unbuilt import unbuilt
from idi.world.types import ModuleWorld, World

MAX_INSTANCES = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """`detail` is what the journal says of the request: for ever, so no value of configuration is in it. `only` names
    the modules that it is about, None: all. `notes` are for whoever asked. `secret` is written before anything else is
    looked at: only then its version is known."""

    wanted: Wanted
    detail: dict[str, JSON]
    platform: Platform | None
    only: Collection[str] | None = None
    notes: Collection[str] = ()
    secret: NewSecret | None = None
    rotation: rotation.Asked | None = None


def what_is_asked(
    request: ChangeRequest, wanted: Wanted, platform: Platform | None, world: World, environment: str
) -> Asked:
    """`wanted` and `platform` are what holds now. Raises `Invalid` for a declaration that cannot be, else `Refused`."""
    match request["action"]:
        case "up":
            found = load_declaration(request["text"], request["file"], environment, wanted.overlays)
            keep_the_name(found.platform, platform, world)
            keep_where_events_are(found.platform, platform)
            has_room(found.platform, found.overlays)
            after = replace(
                wanted, up=True, text=request["text"], file=request["file"], overlays=found.overlays
            )
            return Asked(after, {"file": request["file"]}, found.platform, notes=found.notes)
        case "deploy":
            running(wanted, platform)
            push = asked_push(request, wanted, environment)
            found = load_declaration(push.text, request["file"], environment, wanted.overlays)
            keep_the_name(found.platform, platform, world)
            keep_where_events_are(found.platform, platform)
            after = replace(wanted, text=push.text, file=request["file"], overlays=found.overlays)
            about_it = told(found.platform, push.names, request["file"])
            return Asked(after, about_it, found.platform, push.names, found.notes)
        case "down":
            # What somebody runs themselves goes with the platform and does not come back with it.
            return Asked(replace(wanted, up=False, overlays=replace(wanted.overlays, runs={})), {}, platform)
        case "scale":
            platform = running(wanted, platform)
            counts = {module_named(platform, name): n for name, n in request["modules"].items()}
            for name, count in counts.items():
                check_count(platform, name, count)
            instances = {**wanted.overlays.instances, **counts}
            overlays = fitting(platform, replace(wanted.overlays, instances=instances))
            before = {name: module.instances for name, module in platform.modules.items()}
            before |= wanted.overlays.instances
            if any(count > before[name] for name, count in counts.items()):
                has_room(platform, overlays)
            detail: dict[str, JSON] = {"modules": dict(request["modules"])}
            notes = counted_by_others(world, counts)
            return Asked(replace(wanted, overlays=overlays), detail, platform, counts, notes)
        case "restart":
            platform = running(wanted, platform)
            names = [module_named(platform, name) for name in request["modules"]]
            generations = dict(wanted.overlays.generations)
            for name in names:
                generations[name] = generations.get(name, 0) + 1
            overlays = replace(wanted.overlays, generations=generations)
            return Asked(replace(wanted, overlays=overlays), {"modules": [*names]}, platform, names)
        case "config":
            name = module_named(running(wanted, platform), request["module"])
            new = reconfigured(request, name, wanted, environment)
            about: dict[str, JSON] = {
                "module": name,
                "set": sorted(request["set"]),
                "unset": sorted(request["unset"]),
            }
            return Asked(replace(wanted, overlays=new.overlays), about, new.platform, [name], new.notes)
        case "run":
            platform = running(wanted, platform)
            name = able_to_lend(platform, wanted, request["module"])
            # Never two writers: ours goes before theirs may come.
            standing = strategy_of(platform.modules[name]) == "recreate"
            run = Run(request.get("by", ""), request.get("pid", 0), standing)
            return Asked(with_run(wanted, name, run), {"module": name}, platform, [name])
        case "hand-over":
            platform = running(wanted, platform)
            name = module_named(platform, request["module"])
            run_by = wanted.overlays.runs.get(name)
            there = world.modules[name].instances.values() if name in world.modules else ()
            if run_by is None or not any(one.by and one.state == "ready" for one in there):
                raise Refused(f"Nobody runs an instance of {name} that is ready.", "idi run does.")
            handed = with_run(wanted, name, replace(run_by, standing=True))
            return Asked(handed, {"module": name}, platform, [name])
        case "give-back":
            platform = running(wanted, platform)
            name = module_named(platform, request["module"])
            back: dict[str, JSON] = {"module": name}
            if why := request.get("why"):
                back["why"] = why[:200]
            return Asked(with_run(wanted, name, None), back, platform, [name])
        case "secret":
            platform = running(wanted, platform)
            secret = asked_secret(request, wanted, platform)
            return Asked(
                wanted, {"path": secret.path}, platform, able(platform, wanted, secret), secret=secret
            )

        case "keys":
            platform = running(wanted, platform)
            issuer = platform.gateway.issuer
            external = issuer.url if isinstance(issuer, ExternalIssuer) else ""
            users = [
                name
                for name, module in platform.modules.items()
                if BUS in platform.modules and logs_in(module)
            ]
            rotated = rotation.asked(request["keys"], request.get("now", False), external, bool(users))
            return Asked(wanted, {"keys": [rotation.BUS]}, platform, users, rotation=rotated)


def running(wanted: Wanted, platform: Platform | None) -> Platform:
    if platform is None or not wanted.up:
        raise Refused("The platform is not up.", "Run idi up first.")
    return platform


def load_declaration(text: str, file: str, environment: str, overlays: Overlays) -> Applicable:
    """The declaration, if this version can do all of it on this machine."""
    found = fitted(text, file, environment, overlays)
    loaded = found.loaded
    if isinstance(loaded, Rejected):
        raise Invalid([str(mistake) for mistake in loaded.mistakes])
    reason, way_out = unbuilt(loaded.platform)
    if reason:
        raise Refused(reason, way_out)
    return applicable(loaded, found)


def keep_the_name(platform: Platform, before: Platform | None, world: World) -> None:
    """Every certificate and policy carries it: with another one nobody could call anybody until the last
    certificate was replaced."""
    there = world.modules or any(part.state != "absent" for part in world.parts.values())
    if before is not None and before.name != platform.name and there:
        raise Refused(
            f"The platform that runs is called {before.name}, the file says {platform.name}: the name is in "
            "every identity and cannot change while it runs.",
            "Run idi down, then idi up.",
        )


def keep_where_events_are(platform: Platform, before: Platform | None) -> None:
    """A topic is on disk or in memory from its first event on; to move it would be to lose what it holds."""
    for event in platform.events.values():
        was = before.events.get(event.name) if before else None
        if was is not None and was.durable != event.durable:
            place = "on disk" if was.durable else "in memory"
            raise Refused(
                f"Events of type {event.name} are kept {place}, and what is kept cannot move.",
                "Leave durable as it was, or give the event type another name.",
            )


def module_named(platform: Platform, name: str) -> ModuleName:
    if name not in platform.modules:
        hint = did_you_mean(name, platform.modules)
        raise Refused(f"No module is called '{name}'.", hint or f"There are {', '.join(platform.modules)}.")
    return ModuleName(name)


def title_of(request: ChangeRequest) -> str:
    if request["action"] == "scale":
        return "scale " + " ".join(f"{name}={count}" for name, count in request["modules"].items())
    if request["action"] == "deploy":
        return " ".join(["deploy", *request["modules"]])[:256]
    if request["action"] == "restart":
        return "restart " + " ".join(request["modules"])
    if request["action"] == "config":
        return f"config {request['module']}"
    if request["action"] in ("run", "hand-over", "give-back"):
        return f"{request['action']} {request['module'][:64]}"
    if request["action"] == "secret":
        return f"secrets {'set' if 'value' in request else 'rotate'} {request['path'][:256]}"
    if request["action"] == "keys":
        return f"keys rotate {' '.join(request['keys'])[:256]}"
    return request["action"]


def able_to_lend(platform: Platform, wanted: Wanted, module: str) -> ModuleName:
    name = module_named(platform, module)
    if name in OWN:
        raise Refused(f"{name} came with the platform: nobody else runs it.")
    if (run := wanted.overlays.runs.get(name)) is not None:
        raise Refused(
            f"{run.by} runs an instance of {name} already (idi run, pid {run.pid}).",
            "End that one first: two would not know whose breakpoint a request meets.",
        )
    return name


def with_run(wanted: Wanted, name: ModuleName, run: Run | None) -> Wanted:
    runs = {other: one for other, one in wanted.overlays.runs.items() if other != name}
    if run is not None:
        runs[name] = run
    return replace(wanted, overlays=replace(wanted.overlays, runs=runs))


def has_room(platform: Platform, overlays: Overlays) -> None:
    reason, way_out = lacking(platform, overlays.instances)
    if reason:
        raise Refused(reason, way_out)


def counted_by_others(world: World, counts: Mapping[ModuleName, int]) -> list[str]:
    """What is to be said of modules whose instances an autoscaler counts that was not declared here."""
    return [
        f"{one.manager} counts the instances of {name}: {count} is the least, and it may have more."
        for name, count in counts.items()
        if count > 0
        for revision in world.modules.get(name, ModuleWorld()).revisions.values()
        for one in revision.drift
        if one.left
    ]


def check_count(platform: Platform, name: ModuleName, count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_INSTANCES:
        raise Refused(f"{name}={count} is out of range.", f"Write a number from 0 to {MAX_INSTANCES}.")
    scale = platform.modules[name].scale
    if scale and isinstance(platform.target, KubernetesTarget) and count > scale.max:
        raise Refused(
            f"{name} scales by itself, to {scale.max} at most: {count} cannot be the least.",
            f"Write at most {name}={scale.max}, or raise scale.max in the declaration.",
        )
    if platform.modules[name].storage and count > 1:
        raise Refused(
            f"{name} has storage, so two instances would be two writers.", f"Write {name}=1 or {name}=0."
        )
