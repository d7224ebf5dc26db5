"""An environment on a cluster from outside: its namespace and the platform's release in it.

What control may not make itself (its own namespace, its own rights, quotas) is made here, with the rights of whoever
runs the command: one namespace and one Helm release, which a person could install by hand with the same values.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idi.api.cluster import Cluster, Denied
from idi.declaration.demand import UNDECLARED_QUOTA, most
from idi.declaration.types import KubernetesTarget, Platform, Seal
from idi.parts.clients.helm import Helm, Reach, charts, find
from idi.parts.clients.helm_errors import HelmError
from idi.parts.clients.profiles import profile_values
from idi.parts.errors import IdiError, Refused

RELEASE = "idi"
INSTALL_S = 300.0
SEAL_BYTES = 32
DECLARED = "idi.dev/declared"


def release_values(platform: Platform) -> dict[str, Any]:
    """The values of the platform's chart that follow from the declaration."""
    target = target_of(platform)
    if target.images is None:
        raise Refused("The environment does not name IDI's images.", "Name them under its target.")
    quota = {
        **({"requests.cpu": f"{target.quota.cpu_millicores}m"} if target.quota.cpu_millicores else {}),
        **({"requests.memory": str(target.quota.memory_bytes)} if target.quota.memory_bytes else {}),
        **({"pods": str(target.quota.pods)} if target.quota.pods else {}),
    }
    # The chart bounds these too. Nobody declared them, so they are in nobody's way.
    largest = most(platform)
    if largest.memory_limit_bytes > UNDECLARED_QUOTA.memory_limit_bytes:
        quota["limits.memory"] = str(largest.memory_limit_bytes)
    if largest.claims > UNDECLARED_QUOTA.claims:
        quota["persistentvolumeclaims"] = str(largest.claims)
    if largest.storage_bytes > UNDECLARED_QUOTA.storage_bytes:
        quota["requests.storage"] = str(largest.storage_bytes)
    declared = {
        "platform": platform.name,
        "environment": platform.environment,
        "images": {
            "control": target.images.control,
            "sidecar": target.images.sidecar,
            **({"relay": target.images.relay} if target.images.relay else {}),
        },
        "control": {
            **({"storage": {"class": target.storage_class}} if target.storage_class else {}),
            **({"sealKey": seal_values(target.seal)} if target.seal else {}),
        },
        "gateway": {"service": {"type": target.gateway}},
        **({"networkPolicy": {"dns": {"cidrs": list(target.dns)}}} if target.dns else {}),
        **({"quota": quota} if quota else {}),
    }
    return merged(profile_values(target.profile), declared)


def seal_values(seal: Seal) -> dict[str, Any]:
    return {
        "secret": seal.secret,
        "key": seal.key,
        **({"previous": seal.previous} if seal.previous else {}),
    }


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm lays values over each other: maps by key, all else is replaced."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        found[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return found


def namespace_of(platform: Platform) -> dict[str, Any]:
    """The environment's namespace, in the restricted profile of pod security."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": platform.namespace,
            "labels": {
                "app.kubernetes.io/part-of": platform.name,
                "idi.dev/environment": platform.environment,
                "pod-security.kubernetes.io/enforce": "restricted",
            },
        },
    }


def cluster_of(platform: Platform) -> Cluster:
    return Cluster(target_of(platform).context, platform.namespace)


def install(platform: Platform) -> bool:
    """Bring namespace and release to what is declared; whether that changed anything. Who may not install needs not
    to, where what is there is what would be installed. Raises `Refused` where it is not."""
    cluster, values = cluster_of(platform), signed_values(platform)
    try:
        cluster.apply(namespace_of(platform))
        if seal := target_of(platform).seal:
            check_seal(cluster, seal)
        return _installed(platform, values)
    except (Denied, HelmError) as error:
        if isinstance(error, HelmError) and error.kind != "forbidden":
            raise
        if installed_digest(cluster) == values["declared"]:
            return False
        raise Refused(
            f"What is installed in {platform.namespace} is not what this declaration and this idi would install, and "
            f"you may not install it: {error.message}",
            f"Have somebody run idi up --env {platform.environment} once who may (idi doctor says what that needs); "
            "modules alone are pushed by idi deploy.",
        ) from error


def signed_values(platform: Platform) -> dict[str, Any]:
    """The values of its release, with the digest by which somebody who may not install sees that all is as declared."""
    values = release_values(platform)
    return {**values, "declared": declared_digest(values)}


def declared_digest(values: Mapping[str, Any]) -> str:
    """Of all that a release is made of: the values, and the chart itself."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    folder = charts() / "platform"
    for file in sorted(folder.rglob("*")):
        # Not what an editor leaves there.
        if file.suffix in (".yaml", ".json", ".tpl", ".txt") and not file.name.startswith("."):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def installed_digest(cluster: Cluster) -> str:
    """The same of what is there; empty where nobody says, or may not look."""
    try:
        found = cluster.get("service", "control")
    except IdiError:
        return ""
    annotations = (found or {}).get("metadata", {}).get("annotations") or {}
    return str(annotations.get(DECLARED, ""))


def _installed(platform: Platform, values: Mapping[str, Any]) -> bool:
    async def work(helm: Helm) -> bool:
        status = await helm.status(RELEASE, platform.namespace)
        if status is not None and status.status == "deployed":
            if await helm.get_values(RELEASE, platform.namespace) == values:
                return False
        await helm.upgrade(RELEASE, charts() / "platform", platform.namespace, values)
        return True

    with tempfile.TemporaryDirectory(prefix="idi-helm-") as folder:
        return asyncio.run(work(_helm(platform, Path(folder))))


def check_seal(cluster: Cluster, seal: Seal) -> None:
    """Without it control's pod would not start, and nobody be told why but by events. Its length is looked at, and
    nothing of it kept or said."""
    named = [name for name in (seal.key, seal.previous) if name]
    held = (cluster.get("secret", seal.secret) or {}).get("data") or {}
    wrong = [name for name in named if len(base64.b64decode(held.get(name, ""))) != SEAL_BYTES]
    if wrong:
        raise Refused(
            f"Secret {seal.secret} in namespace {cluster.namespace} has no {SEAL_BYTES} bytes under "
            f"{', '.join(wrong)}.",
            f"head -c {SEAL_BYTES} /dev/urandom > {wrong[0]} && kubectl --context {cluster.context} "
            f"-n {cluster.namespace} create secret generic {seal.secret} --from-file={wrong[0]}   "
            "Keep a copy elsewhere: nothing else opens the store.",
        )


def uninstall(platform: Platform) -> None:
    """Take the release away; volumes, and with them the journal, stay."""
    with tempfile.TemporaryDirectory(prefix="idi-helm-") as folder:
        asyncio.run(_helm(platform, Path(folder)).uninstall(RELEASE, platform.namespace))


def target_of(platform: Platform) -> KubernetesTarget:
    if not isinstance(platform.target, KubernetesTarget):
        raise Refused(f"Environment '{platform.environment}' is not on a cluster.")
    return platform.target


def _helm(platform: Platform, folder: Path) -> Helm:
    return Helm(find(), Reach(context=target_of(platform).context), folder, timeout_s=INSTALL_S)
