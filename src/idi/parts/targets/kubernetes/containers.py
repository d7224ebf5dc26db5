"""Which containers of which pods print something that a person may ask for, and by which names: pure.

A module's own output has its pod's name, its sidecar's that name with `.sidecar`; a part that has one pod its own name,
and one that has several theirs. Each goes also by what it is one of: `jede`, `jede.sidecar`, `gateway`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from idi.parts.clients.kubernetes_pod import containers
from idi.parts.targets.kubernetes.pods import ACCOUNT, MAIN, MODULE, PART

SIDECAR = "sidecar"
SINGLE = frozenset({"control"})
"""Parts that have one pod."""


@dataclass(frozen=True, slots=True)
class Source:
    """What one container prints."""

    pod: str
    container: str
    name: str
    family: str
    module: str

    def among(self, names: Collection[str]) -> bool:
        """Whether it is asked for; without names every module's own output is."""
        return self.name in names or self.family in names or (not names and bool(self.module))


@dataclass(frozen=True, slots=True)
class Life:
    """How the container is: `id` of the one whose output can be had, empty while there is none; `before` whether the
    output of its predecessor can be had as well."""

    id: str
    running: bool
    before: bool


def sources_of(pod: Mapping[str, Any]) -> Iterator[Source]:
    """Those of one pod; none of one that does not run as what its label says."""
    metadata, spec = pod["metadata"], pod.get("spec", {})
    name, labels = str(metadata["name"]), metadata.get("labels", {})
    module, part = labels.get(MODULE, ""), labels.get(PART, "")
    if spec.get("serviceAccountName") != f"{ACCOUNT}{module or part}":
        return
    if module:
        yield Source(name, MAIN, name, module, module)
        yield Source(name, SIDECAR, f"{name}.{SIDECAR}", f"{module}.{SIDECAR}", "")
    elif part:
        first = next((str(one["name"]) for one in spec.get("containers", [])), part)
        yield Source(name, first, part if part in SINGLE else name, part, "")


def life_of(pod: Mapping[str, Any], container: str) -> Life:
    """As kubelet gives it out: of one that waits to be started again, what ended last."""
    for one in containers(pod.get("status", {})):
        if one["name"] != container:
            continue
        state, ended = one.get("state", {}), one.get("lastState", {}).get("terminated")
        if "running" in state or "terminated" in state:
            its = str(one.get("containerID") or state.get("terminated", {}).get("containerID") or "?")
            return Life(its, "running" in state, ended is not None)
        if ended is not None:
            return Life(str(ended.get("containerID") or "?"), running=False, before=False)
    return Life("", running=False, before=False)
