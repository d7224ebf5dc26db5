"""What is: revisions, instances and parts, as last heard of.

The world is folded from events (`world.fold`) and from nothing else. It says what exists and in which
state, never what somebody wants (that is `plan`). It is a value: a fold returns a new world, so that a
decision can be made on one snapshot and tested without a clock or a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from idi.declaration.types import ModuleName, Readiness

RevisionId = NewType("RevisionId", str)
"""Content address of what runs: 8 hexadecimal digits over the revision's spec."""

InstanceId = NewType("InstanceId", str)
"""Unique within a platform at any one moment: `<module>-<slot>`, slot from 1, or the name of its pod."""

InstanceState = Literal["starting", "ready", "unready", "stopping", "failed"]
PartState = Literal["absent", "starting", "ready", "unready", "failed"]


@dataclass(frozen=True, slots=True)
class PortSpec:
    """One port that the module listens on; the target chooses numbers."""

    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class PeerPort:
    """One port of one peer as a caller sees it: `name` is `cam`, or `cam.admin` for a further port."""

    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What a cluster has to know of a revision beside what a process needs: which image, on which nodes, and how much
    of them. `recreate`: never two writers. `command`: other words than the image's own, with references as in
    `RevisionSpec`. `mounts`: by folder, whose Secret is in it. `gpu`: what nodes call one, where it asks for any."""

    image: str
    command: tuple[str, ...] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)
    pool: str = "general"
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu: str = ""
    gpus: int = 0
    storage_bytes: int = 0
    recreate: bool = False


@dataclass(frozen=True, slots=True)
class RevisionSpec:
    """Everything a target needs to run one revision of a module, whole and self-contained.

    `command` and the values of `environment` may hold references that only the target can fill (port
    numbers, data folder): they are written `${...}` exactly as in the declaration and `$${` stands for a
    literal `${`. A spec is written to disk as it stands, so no secret is ever in one: `secrets` has the version
    of each that the module declares, by path (all 0 while one of them is not set). `workload` is there where it runs
    on a cluster, `command` where it runs on this machine.
    """

    module: ModuleName
    revision: RevisionId
    version: str
    command: str
    directory: str
    environment: Mapping[str, str]
    ports: tuple[PortSpec, ...]
    peers: tuple[PeerPort, ...]
    readiness: Readiness
    grace_s: float
    storage: bool
    secrets: Mapping[str, int] = field(default_factory=dict)
    workload: Workload | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a revision.

    `ports` are the module's own loopback ports by port name; `mesh` the sidecar's ports that accept
    mutual TLS for each of them; `outbound` the sidecar's loopback ports by peer name. `address` is the
    IP address of `mesh`. `since` is wall-clock seconds since the epoch of the last change of state.
    `reason` is for people: why it is not ready. `supervised` is False for instances that somebody else
    runs: registered ones, and those of `idi run`, where `by` is who. `node` is the machine of a cluster it is on.
    """

    id: InstanceId
    module: ModuleName
    revision: RevisionId
    state: InstanceState
    address: str
    ports: Mapping[str, int]
    mesh: Mapping[str, int]
    outbound: Mapping[str, int]
    since: float
    pid: int = 0
    sidecar_pid: int = 0
    restarts: int = 0
    reason: str = ""
    supervised: bool = True
    by: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """Somebody else changed what the target keeps for a revision: the object, its field (empty: the whole of it is
    gone), what is declared and what is there (both empty where a value is not to be told), and the program that did
    it, where that is known. `left`: a controller owns the field, and it stays as it is. `added`: nobody declared it."""

    object: str
    field: str = ""
    declared: str = ""
    there: str = ""
    manager: str = ""
    left: bool = False
    added: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision the target knows: its spec, how many instances it keeps, whether it crash-loops, a digest of what is
    kept for it beside its instances, and what somebody else changed of all that. `scaled`: how many an autoscaler
    wants now, where one says so; `count` is the least then. `anew`: its instances are being made anew, one after the
    other, which they do not tell by themselves."""

    spec: RevisionSpec
    count: int
    degraded: str = ""
    around: str = ""
    scaled: int = 0
    drift: tuple[Drift, ...] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class ModuleWorld:
    """`shares` are explicit traffic weights by revision; empty means by number of ready instances."""

    revisions: Mapping[RevisionId, Revision] = field(default_factory=dict)
    instances: Mapping[InstanceId, Instance] = field(default_factory=dict)
    shares: Mapping[RevisionId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One of IDI's own processes (OpenBao, the gateway) as last heard of."""

    name: str
    state: PartState
    since: float
    pid: int = 0
    reason: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class World:
    modules: Mapping[ModuleName, ModuleWorld] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    def instances(self) -> tuple[Instance, ...]:
        return tuple(i for module in self.modules.values() for i in module.instances.values())
