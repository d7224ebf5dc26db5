"""A revision's spec as a JSON document: what a target keeps beside an instance, so that every one describes itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from idi.declaration.types import ModuleName, Readiness
from idi.world.types import PeerPort, PortSpec, RevisionId, RevisionSpec, Workload


def document_of(spec: RevisionSpec) -> dict[str, Any]:
    """No secret is in it: a spec has none."""
    return {
        **{each.name: getattr(spec, each.name) for each in dataclasses.fields(spec)},
        "environment": dict(spec.environment),
        "secrets": dict(spec.secrets),
        "ports": [dataclasses.asdict(port) for port in spec.ports],
        "peers": [dataclasses.asdict(peer) for peer in spec.peers],
        "readiness": dataclasses.asdict(spec.readiness),
        "workload": workload_document(spec.workload) if spec.workload else None,
    }


def workload_document(workload: Workload) -> dict[str, Any]:
    its = {each.name: getattr(workload, each.name) for each in dataclasses.fields(workload)}
    return {**its, "command": list(workload.command), "mounts": dict(workload.mounts)}


def spec_of(document: dict[str, Any]) -> RevisionSpec:
    """The spec in a document. Raises KeyError, TypeError or ValueError on anything else."""
    workload = document.get("workload")
    if workload:
        # What an earlier version of IDI wrote has perhaps more in it; its pods serve all the same.
        known = {each.name for each in dataclasses.fields(Workload)}
        workload = {name: value for name, value in workload.items() if name in known}
        workload["command"] = tuple(workload.get("command", ()))
    return RevisionSpec(
        **{
            **document,
            "module": ModuleName(document["module"]),
            "revision": RevisionId(document["revision"]),
            "ports": tuple(PortSpec(**port) for port in document["ports"]),
            "peers": tuple(PeerPort(**peer) for peer in document["peers"]),
            "readiness": Readiness(**document["readiness"]),
            "workload": Workload(**workload) if workload else None,
        }
    )
