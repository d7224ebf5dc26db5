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
        "workload": dataclasses.asdict(spec.workload) if spec.workload else None,
    }


def spec_of(document: dict[str, Any]) -> RevisionSpec:
    """The spec in a document. Raises KeyError, TypeError or ValueError on anything else."""
    workload = document.get("workload")
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
