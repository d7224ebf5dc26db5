"""(desired, world) -> the ordered steps that lead from one to the other.

Make before break: an instance goes only after its successor is ready, one quarter of the instances (at
least one) at a time; a module that must never have two writers (`recreate`) is the one exception, there
the old one goes first. The plan is computed from what is, not from what was tried: cut after any step
and computed again it reaches the same end, and where nothing differs it is empty. The order of steps
within a module is the whole safety argument, so it is written as straight code:

    rolling    ensure new k, await new k, ensure old n-k … remove old
    blue-green ensure new n, await new n, remove old
    recreate   remove old, ensure new n, await new n

Where the target rolls by itself (`DesiredModule.rolls`) the order is its Deployment's, and the steps are two: ensure
new n, await new n.

An instance that somebody runs themselves (`idi run`) stands for one of ours in the same order: its seat is made
first, ours goes once theirs is ready, and comes back before theirs goes; with `recreate` the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from idi.plan.bus import BUS, RELAY
from idi.plan.types import (
    AwaitReady,
    Desired,
    DesiredModule,
    Detach,
    Ensure,
    Lend,
    Plan,
    Remove,
    Retry,
    StartPart,
    Step,
    StopPart,
)
from idi.world.types import Drift, Instance, ModuleWorld, Revision, RevisionId, RevisionSpec, Workload, World

UNDECLARED = "no longer declared"
GOES_DOWN = "the platform goes down"
GIVEN_BACK = "it is given back"
PULL_S = 60.0
"""How much longer the next may take where a Deployment brings them in: its image is pulled, and a former one ends."""
MOST_TOLD = 4


def difference(desired: Desired, world: World) -> Plan:
    """The steps from `world` to `desired`; empty when there is nothing to do."""
    first: list[Step] = []
    last: list[Step] = []
    lanes: dict[str, tuple[Step, ...]] = {}
    for name in desired.parts:
        part = world.parts.get(name)
        if part is None or part.state == "absent":
            lanes[name] = (StartPart(name),)
        elif part.state != "ready":  # starting what is there already is waiting until it works
            lanes[name] = (StartPart(name, f"it is {part.state}"),)
    for name in reversed([n for n, p in world.parts.items() if p.state != "absent"]):
        if name not in desired.parts:
            # The gateway closes first: nothing new comes in while the modules go.
            (first if name == "gateway" else last).append(StopPart(name))
    for module in (*desired.modules, *(name for name in world.modules if name not in desired.modules)):
        there = world.modules.get(module, ModuleWorld())
        steps = module_steps(desired.modules.get(module), there, UNDECLARED if desired.modules else GOES_DOWN)
        if steps:
            lanes[module] = tuple(steps)
    if not desired.modules:
        # Who ends may still publish: the relay is there until then, and the bus until the relay has ended.
        last = [step for name in (RELAY, BUS) for step in lanes.pop(name, ())] + last
    return Plan(tuple(first), lanes, tuple(last))


def module_steps(wanted: DesiredModule | None, module: ModuleWorld, leaving: str) -> list[Step]:
    """The steps of one module, each with its reason in two lengths; `leaving` is why it is wanted no longer."""
    steps = bare_steps(wanted, module, leaving)
    if wanted is None:
        return [with_brief(step, "") for step in steps]
    others = [r.spec for id, r in module.revisions.items() if id != wanted.spec.revision]
    changed = ", ".join(changed_names(others[0], wanted.spec)) or "restart" if others else ""
    return [with_brief(step, changed) for step in steps]


def with_brief(step: Step, changed: str) -> Step:
    """`changed` names what differs between two revisions; a reason that is no such difference is brief itself."""
    if isinstance(step, Ensure | Remove):
        return replace(step, brief=changed or step.brief or step.reason)
    return step


def bare_steps(wanted: DesiredModule | None, module: ModuleWorld, leaving: str) -> list[Step]:
    """The steps of one module, with reasons for whoever looks now."""
    others = [i for i in module.instances.values() if not i.supervised and i.state != "stopping"]
    if wanted is None:
        return [
            *(remove(revision, leaving) for revision in module.revisions.values()),
            *(Detach(i.module, i.id, leaving, i.by) for i in others),
        ]
    steps, lent = steps_of_ours(wanted, module), [i for i in others if i.by]
    never_two = wanted.strategy == "recreate"
    if wanted.run is not None:
        seat = [] if lent else [Lend(wanted.spec, wanted.run)]
        return [*steps, *seat] if never_two else [*seat, *steps]
    back = [Detach(i.module, i.id, GIVEN_BACK, i.by) for i in lent]
    # What serves no more has no traffic that had to wait for ours.
    first = never_two or not any(i.state == "ready" for i in lent)
    return [*back, *steps] if first else [*steps, *back]


def steps_of_ours(wanted: DesiredModule, module: ModuleWorld) -> list[Step]:
    """The same for the instances that the target keeps."""
    spec = wanted.spec
    present = module.revisions.get(spec.revision)
    others = {id: revision for id, revision in module.revisions.items() if id != spec.revision}
    why = reason_for(spec, others)
    if wanted.rolls:
        return grow(module, wanted, present, why or scale_reason(wanted, module, present))
    if others and wanted.strategy == "recreate":
        return [
            *(remove(revision, why) for revision in others.values()),
            *grow(module, wanted, present, why),
        ]
    if others and wanted.strategy == "rolling":
        return rolling(module, wanted, present, others, why)
    return [
        *grow(module, wanted, present, why or scale_reason(wanted, module, present)),
        *(remove(revision, why) for revision in others.values()),
    ]


def rolling(
    module: ModuleWorld,
    wanted: DesiredModule,
    present: Revision | None,
    others: Mapping[RevisionId, Revision],
    why: str,
) -> list[Step]:
    steps: list[Step] = []
    counts = {id: kept(module, revision) for id, revision in others.items()}
    new, known = (kept(module, present), present.count) if present else (0, 0)
    batch = max(1, wanted.ours // 4)
    if present and new and ready(module, wanted.spec.revision) < min(new, wanted.ours):
        steps.extend(retry(module, wanted.spec))
        steps.append(await_ready(wanted.spec, min(new, wanted.ours)))
    while new < wanted.ours:
        grown = min(wanted.ours, new + batch)
        steps.append(Ensure(wanted.spec, grown, new, why))
        steps.append(await_ready(wanted.spec, grown))
        new = known = grown
        surplus = sum(counts.values()) - (wanted.ours - new)
        # What does not work goes first: an earlier version that failed must not cost those that serve.
        for id, revision in sorted(others.items(), key=lambda other: ready(module, other[0])):
            goes = min(counts[id], max(0, surplus))
            if goes and new < wanted.ours:  # the last ones go with the revision
                steps.append(Ensure(revision.spec, counts[id] - goes, counts[id], why))
                counts[id] -= goes
                surplus -= goes
    if known != wanted.ours:
        steps.append(Ensure(wanted.spec, wanted.ours, new, why))
    steps.extend(Remove(r.spec.module, id, counts[id], why) for id, r in others.items())
    return steps


def grow(module: ModuleWorld, wanted: DesiredModule, present: Revision | None, why: str) -> list[Step]:
    """One revision to exactly as many instances as are wanted, all of them ready."""
    spec, count = wanted.spec, wanted.ours
    steps: list[Step] = []
    there, known = (kept(module, present), present.count) if present else (0, 0)
    moved = present is not None and present.around != wanted.around
    undone = [one for one in present.drift if not one.left] if present is not None else []
    if known != count or there < count or moved or undone:
        reasons = [
            why or ("who may reach it, its sidecar, or how it scales" if moved else ""),
            put_back(undone),
        ]
        brief = put_back(undone, brief=True) if undone and not why else ""
        reason = "; ".join(filter(None, reasons))
        steps.append(Ensure(spec, count, there, reason, brief, around=wanted.around, most=wanted.most))
    few = ready(module, spec.revision) < count
    anew = moved or bool(undone) or (present is not None and present.anew)
    if few or (wanted.rolls and anew):
        steps.extend(retry(module, spec))
    if few or (wanted.rolls and (anew or former(module, spec.revision))):
        # Where nothing is brought in there is nothing to pull, and none that ends before.
        more_s = spec.grace_s + PULL_S if wanted.rolls and (steps or anew) else 0.0
        steps.append(await_ready(spec, count, more_s, alone=wanted.rolls))
    return steps


def former(module: ModuleWorld, revision: RevisionId) -> list[Instance]:
    """Supervised instances of other revisions that have traffic still."""
    return [
        i for i in module.instances.values() if i.revision != revision and i.supervised and i.state == "ready"
    ]


def put_back(drift: list[Drift], *, brief: bool = False) -> str:
    """Why what is declared is ensured again; `brief` without any value."""
    if not drift:
        return ""
    told = [drift_words(one, brief=brief) for one in drift[:MOST_TOLD]]
    more = [f"and {len(drift) - MOST_TOLD} more"] if len(drift) > MOST_TOLD else []
    return f"changed on the cluster: {'; '.join([*told, *more])}"


def drift_words(one: Drift, *, brief: bool = False) -> str:
    by = f" ({one.manager})" if one.manager else ""
    if not one.field:
        return f"{one.object} is gone{by}"
    if brief or not (one.declared or one.there):
        return f"{one.object} {one.field} {'was added' if one.added else 'is another'}{by}"
    if one.added:
        return f"{one.object} {one.field} is {one.there}, and nobody declared it{by}"
    return f"{one.object} {one.field} is {one.there} instead of {one.declared}{by}"


def retry(module: ModuleWorld, spec: RevisionSpec) -> list[Step]:
    """What had failed already does not fail the wait for it before it was tried again."""
    failed = sum(i.state == "failed" for i in supervised(module, spec.revision))
    return [Retry(spec.module, spec.revision, failed, "it had failed")] if failed else []


def await_ready(spec: RevisionSpec, count: int, more_s: float = 0.0, *, alone: bool = False) -> AwaitReady:
    deadline_s = spec.readiness.deadline_s + more_s
    return AwaitReady(spec.module, spec.revision, count, deadline_s, alone=alone)


def remove(revision: Revision, why: str) -> Remove:
    return Remove(revision.spec.module, revision.spec.revision, revision.count, why)


def kept(module: ModuleWorld, revision: Revision) -> int:
    """Instances that there are of a revision: fewer than its count where one could not be started at all."""
    there = sum(i.state != "stopping" for i in supervised(module, revision.spec.revision))
    return min(revision.count, there)


def ready(module: ModuleWorld, revision: RevisionId) -> int:
    """Ready supervised instances of a revision."""
    return sum(i.state == "ready" for i in supervised(module, revision))


def supervised(module: ModuleWorld, revision: RevisionId) -> list[Instance]:
    """Its instances without those that others run."""
    return [i for i in module.instances.values() if i.revision == revision and i.supervised]


def reason_for(spec: RevisionSpec, others: Mapping[RevisionId, Revision]) -> str:
    """Why a new revision: what differs from the one that runs, in words; '' when none runs."""
    if not others:
        return ""
    before = next(iter(others.values())).spec
    return "; ".join(spec_changes(before, spec)) or "restart"


def scale_reason(wanted: DesiredModule, module: ModuleWorld, present: Revision | None) -> str:
    if present is None or present.count == wanted.ours:
        return ""
    if wanted.run is not None and present.count == wanted.count:
        return f"{wanted.run.by} runs one"
    lent = [i.by for i in module.instances.values() if i.by]
    if lent and wanted.run is None and present.count == wanted.count - 1:
        return f"{lent[0]} gives it back"
    return f"instances {present.count} -> {wanted.count} ({wanted.origin})"


def spec_changes(before: RevisionSpec, after: RevisionSpec) -> list[str]:
    """What differs between two revisions of a module, values of configuration included; secrets are never
    part of a spec."""
    return [text for _, text in differences(before, after)]


def changed_names(before: RevisionSpec, after: RevisionSpec) -> list[str]:
    """What differs, without any value."""
    return [name for name, _ in differences(before, after)]


def workload_differences(before: Workload | None, after: Workload | None) -> list[tuple[str, str]]:
    if before is None or after is None:
        return []
    pairs = [(f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(Workload)]
    return [(name, f"{name} {old} -> {new}") for name, old, new in pairs if old != new]


def differences(before: RevisionSpec, after: RevisionSpec) -> list[tuple[str, str]]:
    """(name, text) of everything that differs; only the text has values."""
    found = []
    for name in ("command", "directory", "version", "grace_s", "storage"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            found.append((name, f"{name} {old!r} -> {new!r}"))
    found.extend(workload_differences(before.workload, after.workload))
    if before.readiness != after.readiness:
        found.append(("readiness", "readiness"))
    if before.ports != after.ports:
        old_ports, new_ports = (", ".join(port.name for port in spec.ports) for spec in (before, after))
        found.append(("ports", f"ports {old_ports} -> {new_ports}"))
    old_peers, new_peers = {peer.name for peer in before.peers}, {peer.name for peer in after.peers}
    if gained := sorted(new_peers - old_peers):
        found.append(("calls", f"calls + {', '.join(gained)}"))
    if lost := sorted(old_peers - new_peers):
        found.append(("calls", f"calls - {', '.join(lost)}"))
    for path in sorted({*before.secrets, *after.secrets}):
        old_version, new_version = before.secrets.get(path), after.secrets.get(path)
        if old_version != new_version:
            shown = [
                ("none" if v is None else f"version {v}" if v else "not given")
                for v in (old_version, new_version)
            ]
            found.append((f"secret {path}", f"secret {path} {shown[0]} -> {shown[1]}"))
    for key in sorted({*before.environment, *after.environment}):
        old_value, new_value = before.environment.get(key), after.environment.get(key)
        if old_value == new_value:
            continue
        if key.endswith("_URL"):
            peer = any((value or "").startswith("${peer.") for value in (old_value, new_value))
            if not peer:  # a peer's is said under calls already
                found.append((key, f"{key} changed"))  # it may carry a password
            continue
        shown_old = "unset" if old_value is None else repr(old_value)
        shown_new = "unset" if new_value is None else repr(new_value)
        found.append((key, f"{key} {shown_old} -> {shown_new}"))
    return found
