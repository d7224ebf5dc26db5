"""Declaration + overlays -> desired.

A revision is content-addressed: its id is a hash of everything that a target needs to run it, so the
same declaration always gives the same revision, and any change that matters gives another one.
References (`${port}`, `${peer.cam.address}`) stay in the texts; only the target knows the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from idi.declaration.names import peer_variable
from idi.declaration.types import KubernetesTarget, Module, Platform, Strategy, Template
from idi.plan.bus import ACCOUNTS, ARGV, BUS, LOGIN_PATH, MOUNTED, OWN, RELAY, logs_in
from idi.plan.types import Context, Desired, DesiredModule, KeptSecret, Overlays
from idi.world.types import PeerPort, PortSpec, RevisionId, RevisionSpec, Workload

PARTS = ("openbao", "gateway")
NOTHING_KEPT: Mapping[str, KeptSecret] = {}


def desired(platform: Platform, overlays: Overlays, context: Context) -> Desired:
    """What this environment should run: every module with its revision, count and strategy."""
    modules = {}
    for name, module in platform.modules.items():
        origin = platform.origins.get(f"modules.{name}.instances")
        count = overlays.instances.get(name)
        modules[name] = DesiredModule(
            spec=revision_spec(
                platform, module, overlays.generations.get(name, 0), context, overlays.secrets
            ),
            count=module.instances if count is None else count,
            strategy=strategy_of(module),
            origin="idi scale" if count is not None else str(origin or "default"),
            run=overlays.runs.get(name),
            rolls=isinstance(platform.target, KubernetesTarget),
            around=around(platform, module, context.sidecar),
            most=autoscaled(platform, module),
        )
    return Desired(modules, PARTS)


def autoscaled(platform: Platform, module: Module) -> int:
    """Up to how many the target makes of it by itself; 0 where it does not."""
    return module.scale.max if module.scale and isinstance(platform.target, KubernetesTarget) else 0


def strategy_of(module: Module) -> Strategy:
    """Two instances with storage would be two writers."""
    return "recreate" if module.storage else module.release.strategy


def revision_spec(
    platform: Platform,
    module: Module,
    generation: int,
    context: Context,
    kept: Mapping[str, KeptSecret] = NOTHING_KEPT,
) -> RevisionSpec:
    """The spec of a module's revision, addressed by its content (the versions of its secrets are part of it, so
    that another one is a change like any other) and its restart generation."""
    cluster = isinstance(platform.target, KubernetesTarget)
    draft = RevisionSpec(
        module=module.name,
        revision=RevisionId(""),
        version=context.version,
        command="" if cluster or module.run is None else text(module.run, context),
        directory="" if cluster else context.directory,
        environment=environment(platform, module, context),
        ports=tuple(PortSpec(port.name, port.protocol) for port in module.ports),
        peers=peers(platform, module),
        readiness=module.readiness,
        grace_s=module.grace_s,
        storage=module.storage is not None,
        secrets=versions(module, kept),
        workload=workload(platform.target, module, context)
        if isinstance(platform.target, KubernetesTarget)
        else None,
    )
    document = asdict(draft)
    if not draft.secrets:
        del document["secrets"]  # who has none keeps the address that it had before there were any
    if not cluster:
        del document["workload"]
    content = json.dumps([document, generation], sort_keys=True, separators=(",", ":"))
    return replace(draft, revision=RevisionId(hashlib.sha256(content.encode()).hexdigest()[:8]))


def around(platform: Platform, module: Module, sidecar: str) -> str:
    """A digest of what a cluster is told of a module beside its revision: changed, it is told again, and no instance
    has to be replaced for it. Empty where there is no such thing."""
    target = platform.target
    if not isinstance(target, KubernetesTarget):
        return ""
    callers = sorted(other.name for other in platform.modules.values() if module.name in other.calls)
    outside = [platform.externals[name].port for name in module.calls if name in platform.externals]
    told = [callers, bool(module.routes), sorted(module.calls), outside, target.dns, target.storage_class]
    told += [target.profile, asdict(module.scale) if module.scale else None]
    return hashlib.sha256(json.dumps([*told, sidecar]).encode()).hexdigest()[:8]


def workload(target: KubernetesTarget, module: Module, context: Context) -> Workload:
    own = module.name in OWN
    words = (Template((word,)) for word in ARGV.get(module.name, ()))
    return Workload(
        image=context.relay if own else module.image,
        command=tuple(text(word, context) for word in words),
        mounts={MOUNTED: ACCOUNTS} if module.name == BUS else {},
        pool=module.pool,
        cpu_millicores=module.resources.cpu_millicores,
        memory_bytes=module.resources.memory_bytes,
        gpu=target.gpu if module.resources.gpu else "",
        gpus=module.resources.gpu,
        storage_bytes=module.storage.size_bytes if module.storage else 0,
        recreate=strategy_of(module) == "recreate",
    )


def versions(module: Module, kept: Mapping[str, KeptSecret]) -> dict[str, int]:
    """The version that holds of every secret that the module declares. All are 0 where one is not set yet: it cannot
    start without that one, so setting another is no change of it."""
    paths = sorted(set(module.secrets.values()))
    login = {LOGIN_PATH: kept[LOGIN_PATH].version} if LOGIN_PATH in kept and logs_in(module) else {}
    if any(path not in kept for path in paths):
        return {**dict.fromkeys(paths, 0), **login}
    return {**{path: kept[path].version for path in paths}, **login}


def peers(platform: Platform, module: Module) -> tuple[PeerPort, ...]:
    """Every port of everything the module calls, default port first: `cam`, then `cam.admin`."""
    found = []
    for name in module.calls:
        external = platform.externals.get(name)
        if external is not None:
            found.append(PeerPort(name, external.protocol))
            continue
        peer = next(m for m in platform.modules.values() if m.name == name)
        for index, port in enumerate(peer.ports):
            found.append(PeerPort(name if index == 0 else f"{name}.{port.name}", port.protocol))
    return tuple(found)


def environment(platform: Platform, module: Module, context: Context) -> dict[str, str]:
    """The variables a module gets, as far as they do not depend on one instance's numbers."""
    variables = {
        "IDI_MODULE": module.name,
        "IDI_ENV": platform.environment,
        "IDI_VERSION": context.version,
        "GATEWAY_URL": context.gateway_url,
        "OTEL_SERVICE_NAME": module.name,
        "OTEL_RESOURCE_ATTRIBUTES": (
            f"service.namespace={platform.name},service.version={context.version},"
            f"service.instance.id=${{instance}},deployment.environment.name={platform.environment}"
        ),
    }
    for peer in peers(platform, module):
        if "." not in peer.name and peer.protocol != "tcp" and peer.name != RELAY:
            variables[peer_variable(peer.name)] = f"${{peer.{peer.name}.url}}"
    for name, value in module.config.items():
        variables[name] = text(value, context)
    for name, path in module.secrets.items():
        variables[name] = f"${{{'secret_file' if name in module.secret_files else 'secret'}.{path}}}"
    return variables


def text(template: Template, context: Context) -> str:
    """A template as text: references kept as `${...}`, a literal `${` written `$${`."""
    pieces = []
    for part in template.parts:
        if isinstance(part, str):
            pieces.append(escape(part))
        elif part.path == ("gateway", "url"):
            pieces.append(escape(context.gateway_url))
        elif (known := ".".join(part.path)) in context.places:
            pieces.append(escape(context.places[known]))
        else:
            pieces.append(f"${{{known}}}")
    return "".join(pieces)


def escape(literal: str) -> str:
    return literal.replace("${", "$${")
