"""What a pod says of itself, in the world's words: pure.

Every pod describes itself: its labels name module and revision, an annotation holds the revision's spec, and its ports
follow from the spec by one rule (`numbers`), so that nothing has to be remembered about it and a control that starts
anew knows everything from one list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes_pod import is_ready, trouble
from idi.parts.targets.recorded import spec_of
from idi.world.types import InstanceId, RevisionId, RevisionSpec

MODULE, PART = "idi.dev/module", "idi.dev/part"
SLOT, REVISION, SPEC = "idi.dev/slot", "idi.dev/revision", "idi.dev/spec"
AROUND, COUNT, SCALES = "idi.dev/around", "idi.dev/count", "idi.dev/scales-to"
"""On what makes the pods: a digest of what the release has beside them, how many were asked for, and up to how many an
autoscaler may make of that, where there is one."""

ACCOUNT = "idi-"
"""With what the names of workloads' service accounts begin."""

AGENT_PORT = 20000
APP_PORT, MESH_PORT, OUTBOUND_PORT = 20001, 20101, 20201
"""The first of each kind; a pod has an address of its own, so the same numbers do for all."""

MAIN = "module"
"""Name of the container that is the module's own."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Ports of a pod: the module's own on loopback, the sidecar's for others, the sidecar's for the module."""

    ports: Mapping[str, int]
    mesh: Mapping[str, int]
    outbound: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PodSeen:
    """`address` is empty until its node has given it one. `failed`: it cannot start, or ends again and again.
    `leaving`: somebody deleted it, and it ends. `ready` is what kubelet heard of its agent, a second ago or so."""

    name: InstanceId
    module: ModuleName
    revision: RevisionId
    spec: RevisionSpec
    address: str
    since: float
    leaving: bool = False
    failed: bool = False
    reason: str = ""
    restarts: int = 0
    uid: str = ""
    """A pod that stores is followed by one of the same name."""
    ready: bool = False
    node: str = ""


def numbers(spec: RevisionSpec) -> Numbers:
    return Numbers(
        {port.name: APP_PORT + at for at, port in enumerate(spec.ports)},
        {port.name: MESH_PORT + at for at, port in enumerate(spec.ports)},
        {peer.name: OUTBOUND_PORT + at for at, peer in enumerate(spec.peers)},
    )


def pod_seen(document: Mapping[str, Any]) -> PodSeen | None:
    """None for a pod that is none of ours, or one that has ended for good. A label is anybody's word; the account that
    a pod runs as is proved by its token, so one that runs as another than its module's is none of ours."""
    metadata, status = document["metadata"], document.get("status", {})
    labels = metadata.get("labels", {})
    if MODULE not in labels or not lives_as(document, labels[MODULE]):
        return None
    try:
        spec = spec_of(json.loads(metadata.get("annotations", {})[SPEC]))
    except (KeyError, TypeError, ValueError):
        return None
    failed, reason = trouble(status, MAIN)
    return PodSeen(
        InstanceId(metadata["name"]),
        ModuleName(labels[MODULE]),
        RevisionId(labels.get(REVISION, "")),
        spec,
        status.get("podIP", ""),
        seconds(metadata.get("creationTimestamp", "")),
        leaving="deletionTimestamp" in metadata,
        failed=failed,
        reason=reason,
        ready=is_ready(status),
        uid=metadata.get("uid", ""),
        restarts=sum(one.get("restartCount", 0) for one in status.get("containerStatuses", [])),
        node=document["spec"].get("nodeName", ""),
    )


def lives_as(document: Mapping[str, Any], workload: str) -> bool:
    """Whether it has not ended for good, and runs as this workload's account."""
    account = (document.get("spec") or {}).get("serviceAccountName")
    phase = (document.get("status") or {}).get("phase")
    return account == f"{ACCOUNT}{workload}" and phase not in ("Succeeded", "Failed")


def seconds(timestamp: str) -> float:
    """Kubernetes' time as seconds since the epoch; 0 where there is none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
