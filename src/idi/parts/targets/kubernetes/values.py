"""A revision as the values of its module's chart, and its secrets as one object: pure, but that a profile is read.

What an instance is told comes three ways. Values that are the same in every pod are a ConfigMap, named by its content;
those that name the pod are variables that Kubernetes fills in; those with a secret in them are a Secret object of that
revision, so neither values nor release nor ConfigMap ever has one.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from idi.declaration.types import External, KubernetesTarget, ModuleName, Platform, Scale
from idi.parts.clients import profiles
from idi.parts.errors import Bug
from idi.parts.targets.kubernetes.pods import MODULE, REVISION, numbers
from idi.parts.targets.recorded import document_of
from idi.parts.targets.references import Needed, Place, fill, needed
from idi.plan.bus import BUS
from idi.plan.desired import around
from idi.world.types import InstanceId, RevisionSpec

POD = InstanceId("$(IDI_INSTANCE)")
"""As Kubernetes writes a variable within another's value."""
DATA = Path("/data")
SECRETS = "/var/run/idi/secrets"
MOST_KEPT = 8
_VARIABLE = re.compile(r"\$(?=\()")


@dataclass(frozen=True, slots=True)
class Reach:
    """Who may reach a module, and whom it may reach: as its network policy has it. `control`: so may control."""

    callers: tuple[str, ...] = ()
    gateway: bool = False
    control: bool = False
    calls: tuple[str, ...] = ()
    externals: tuple[External, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every module of an environment."""

    platform: str
    environment: str
    namespace: str
    sidecar_image: str
    storage_class: str = ""
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """What a release says of its module beside the revision, as a declaration has it; `digest` is of all of it."""

    settings: Settings
    reach: Reach = Reach()
    scale: Scale | None = None
    digest: str = ""


def around_of(platform: Platform, module: ModuleName, namespace: str, sidecar_image: str) -> Around:
    settings = settings_of(platform, namespace, sidecar_image)
    declared = platform.modules.get(module)
    if declared is None:
        return Around(settings)
    digest = around(platform, declared, sidecar_image)
    return Around(settings, reach_of(platform, module), declared.scale, digest)


def settings_of(platform: Platform, namespace: str, sidecar_image: str) -> Settings:
    target = platform.target
    if not isinstance(target, KubernetesTarget):
        raise Bug(f"{platform.environment} is not declared for a cluster.")
    return Settings(
        platform=platform.name,
        environment=platform.environment,
        namespace=namespace,
        sidecar_image=sidecar_image,
        storage_class=profiles.storage_class(target),
        dns=profiles.name_servers(target),
    )


def reach_of(platform: Platform, module: ModuleName) -> Reach:
    """Who may call a module, and whom it may call, as declared."""
    if module not in platform.modules:
        return Reach()
    declared = platform.modules[module]
    return Reach(
        callers=tuple(m.name for m in platform.modules.values() if module in m.calls),
        gateway=bool(declared.routes),
        control=module == BUS,
        calls=tuple(name for name in declared.calls if name in platform.modules),
        externals=tuple(platform.externals[name] for name in declared.calls if name in platform.externals),
    )


def release_values(
    settings: Settings,
    spec: RevisionSpec,
    count: int,
    reach: Reach,
    running: Sequence[RevisionSpec] = (),
    digest: str = "",
    scale: Scale | None = None,
) -> dict[str, Any]:
    """`running` are the other revisions that pods run: their configuration stays as long as they may start again. With
    `scale` an autoscaler says how many there are; none does where there are to be none."""
    work = spec.workload
    if work is None:
        raise ValueError(f"{spec.module} has no workload")
    its = needed(spec)
    plain, mine = variables(spec, its)
    scale = scale if count else None
    slot: dict[str, Any] = {
        "revision": spec.revision,
        "image": work.image,
        "command": command(spec) or None,
        "mounts": [{"path": where, "secret": name} for where, name in sorted(work.mounts.items())],
        "replicas": None if scale else count,
        "spec": json.dumps(document_of(spec), sort_keys=True, separators=(",", ":")),
        "env": [{"name": name, "value": value} for name, value in mine.items()],
        "config": plain,
        "secrets": {
            "env": secret_name(spec, "env") if its.texts else None,
            "files": secret_name(spec, "files") if its.files else None,
        },
    }
    kept = [variables(other, needed(other))[0] for other in running][:MOST_KEPT]
    return {
        "platform": settings.platform,
        "environment": settings.environment,
        "module": spec.module,
        "sidecar": {"image": settings.sidecar_image},
        "ports": [{"name": port.name, "protocol": port.protocol} for port in spec.ports],
        "readiness": document_of(spec)["readiness"],
        "grace_s": spec.grace_s,
        "strategy": "recreate" if work.recreate else "rolling",
        "pool": work.pool,
        "resources": resources(work.cpu_millicores, work.memory_bytes),
        "gpu": {"resource": work.gpu, "count": work.gpus} if work.gpus else None,
        "scale": scaling(scale, count) if scale else None,
        "count": count,
        "storage": {"size": str(work.storage_bytes), "class": settings.storage_class or None}
        if work.storage_bytes
        else None,
        "slots": {"stable": slot, "candidate": None},
        "kept": kept,
        "around": digest or None,
        "networkPolicy": {
            "callers": sorted(reach.callers),
            "gateway": reach.gateway,
            "control": reach.control,
            "calls": sorted(reach.calls),
            "externals": [{"port": each.port} for each in reach.externals],
            **({"dns": {"cidrs": list(settings.dns)}} if settings.dns else {}),
        },
    }


def uncounted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, but saying of no number of pods that it holds: an autoscaler does."""
    slots = values["slots"]
    return {**values, "slots": {**slots, "stable": {**slots["stable"], "replicas": None}}}


def scaling(scale: Scale, least: int) -> dict[str, Any]:
    return {
        "min": least,
        "max": max(scale.max, least),
        "cpuPercent": max(1, round(100 * scale.cpu_ratio)),
        "downAfter_s": round(scale.down_after_s),
    }


def resources(cpu_millicores: int, memory_bytes: int) -> dict[str, Any]:
    """Requests as declared; memory is also the limit, since what a node has not got it cannot give."""
    requests = {
        **({"cpu": f"{cpu_millicores}m"} if cpu_millicores else {}),
        **({"memory": str(memory_bytes)} if memory_bytes else {}),
    }
    return {
        **({"requests": requests} if requests else {}),
        **({"limits": {"memory": str(memory_bytes)}} if memory_bytes else {}),
    }


def variables(spec: RevisionSpec, its: Needed) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that are the same in every pod, and those that Kubernetes fills in; none that needs a secret."""
    place = place_of(spec, dict.fromkeys(its.texts, ""))
    plain: dict[str, str] = {}
    mine: dict[str, str] = {}
    for name, text in spec.environment.items():
        if needed_in(text, its.texts):
            continue
        if "${instance}" in text:
            literal = _VARIABLE.sub("$$", text)  # "$(" of the declaration's own stays what it is
            mine[name] = fill(literal, spec, place)
        else:
            plain[name] = fill(text, spec, place)
    return plain, mine


def command(spec: RevisionSpec) -> list[str]:
    """Its words; Kubernetes leaves them as they are but for variables, and none is meant."""
    words = spec.workload.command if spec.workload else ()
    place = place_of(spec, {})
    return [_VARIABLE.sub("$$", fill(word, spec, place)) for word in words]


def secret_of(settings: Settings, spec: RevisionSpec, values: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The objects with the secrets of a revision: variables, and files. `values` are by path."""
    its = needed(spec)
    texts = {path: values[path].decode() for path in its.texts}
    place = place_of(spec, texts)
    found = []
    if its.texts:
        env = {
            name: fill(text, spec, place).encode()
            for name, text in spec.environment.items()
            if needed_in(text, its.texts)
        }
        found.append(_secret(settings, spec, "env", env))
    if its.files:
        found.append(_secret(settings, spec, "files", {file_name(path): values[path] for path in its.files}))
    return found


def secret_name(spec: RevisionSpec, kind: str) -> str:
    """Which versions of which secrets a revision has is part of its address."""
    return f"{spec.module}-secrets-{kind}-{spec.revision}"


def file_name(path: str) -> str:
    return f"{path.replace('/', '.')}-{sha256(path.encode()).hexdigest()[:8]}"


def place_of(spec: RevisionSpec, secrets: Mapping[str, str]) -> Place:
    its = numbers(spec)
    files = {path: f"{SECRETS}/{file_name(path)}" for path in needed(spec).files}
    return Place(POD, its.ports, its.outbound, DATA if spec.storage else None, secrets, files)


def needed_in(text: str, paths: Collection[str]) -> bool:
    return any(f"${{secret.{path}}}" in text for path in paths)


def _secret(settings: Settings, spec: RevisionSpec, kind: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(spec, kind),
            "namespace": settings.namespace,
            "labels": {
                MODULE: spec.module,
                REVISION: spec.revision,
                "app.kubernetes.io/part-of": settings.platform,
                "app.kubernetes.io/managed-by": "idi",
            },
        },
        "type": "Opaque",
        "immutable": True,
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }
