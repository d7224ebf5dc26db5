"""The record of each instance on disk, from which the next control takes over.

One small file per instance, replaced whole (written beside, then renamed), so a reader sees the old or
the new record and never half of one. Before a process starts the record says that it is about to
(`pending`), after that it names pid and start time: whoever died in between leaves a process that is
found by its marker. Records outlive a killed control, which is all they are for; they are not synced to
disk, because no process outlives a power cut. A record that a power cut left empty counts as none.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idi.parts.errors import PartError
from idi.parts.targets.recorded import document_of, spec_of
from idi.world.types import InstanceId, RevisionSpec

VERSION = 1


@dataclass
class Occupant:
    """The process in a seat: its pid and start time (0: none), or one about to start."""

    pid: int = 0
    started: int = 0
    pending: bool = False


@dataclass
class Seat:
    """One instance: what runs there, on which ports, and what is known of its processes.

    `ready` is what was last told of it, `since` when: a new control goes on from there instead of taking a healthy
    endpoint away. `stopping` means that its end was decided. `created` orders seats by age. `attached`: somebody else
    runs the module, on a port of theirs; only the sidecar is ours. `by`: it is lent to them, ports and all, as long as
    their `holder` lives, and `module` is what they started.
    """

    instance: InstanceId
    spec: RevisionSpec
    ports: dict[str, int]
    mesh: dict[str, int]
    outbound: dict[str, int]
    created: float
    module: Occupant = field(default_factory=Occupant)
    sidecar: Occupant = field(default_factory=Occupant)
    restarts: int = 0
    ready: bool = False
    since: float = 0.0
    stopping: bool = False
    attached: bool = False
    by: str = ""
    holder: Occupant = field(default_factory=Occupant)

    @property
    def slot(self) -> int:
        return int(self.instance.rpartition("-")[2])

    def every_port(self) -> set[int]:
        return {*self.ports.values(), *self.mesh.values(), *self.outbound.values()}


def purposes(spec: RevisionSpec) -> list[str]:
    """What a seat needs ports for: `port:http`, `mesh:http`, `outbound:cam`."""
    own = [f"{kind}:{port.name}" for port in spec.ports for kind in ("port", "mesh")]
    return own + [f"outbound:{peer.name}" for peer in spec.peers]


def by_kind(chosen: dict[str, int], kind: str) -> dict[str, int]:
    """The ports chosen for one kind of purpose, by name."""
    return {
        purpose[len(kind) + 1 :]: port for purpose, port in chosen.items() if purpose.startswith(f"{kind}:")
    }


class Records:
    """A folder of records, one JSON document per name."""

    def __init__(self, directory: Path, boot: str) -> None:
        self._directory = directory
        self._boot = boot
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, document: dict[str, Any]) -> None:
        path = self._directory / f"{name}.json"
        beside = path.with_suffix(".new")
        text = json.dumps({"version": VERSION, "boot": self._boot, **document})
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            beside.rename(path)
        except OSError as error:
            raise PartError(f"{path} cannot be written: {error.strerror}.") from error

    def remove(self, name: str) -> None:
        path = self._directory / f"{name}.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise PartError(f"{path} cannot be removed: {error.strerror}.") from error

    def read(self) -> dict[str, dict[str, Any]]:
        """Every record by name. Occupants of an earlier boot are gone and left out."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                text = path.read_text(encoding="utf-8")
                if not text:
                    continue
                document = json.loads(text)
                version = document.pop("version")
                same_boot = document.pop("boot") == self._boot
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise damaged(path, error) from error
            if version != VERSION:
                raise PartError(
                    f"{path} was written by another version (record {version}, this one reads {VERSION}).",
                    "Use the version that wrote it, or stop its processes and remove the file.",
                    retryable=False,
                )
            if not same_boot:
                document = {
                    key: value
                    for key, value in document.items()
                    if key not in ("module", "sidecar", "process", "holder")
                }
            found[path.stem] = document
        return found

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def damaged(path: Path, error: Exception) -> PartError:
    """What to say of a record that cannot be read."""
    return PartError(
        f"{path} is damaged ({type(error).__name__}: {error}).",
        f"Move it away (mv {path} {path}.damaged); what it names is then started anew.",
        retryable=False,
    )


def encode(seat: Seat) -> dict[str, Any]:
    """A seat as a JSON document."""
    spec = seat.spec
    return {
        "instance": seat.instance,
        "module": dataclasses.asdict(seat.module),
        "sidecar": dataclasses.asdict(seat.sidecar),
        "ports": seat.ports,
        "mesh": seat.mesh,
        "outbound": seat.outbound,
        "created": seat.created,
        "restarts": seat.restarts,
        "ready": seat.ready,
        "since": seat.since,
        "stopping": seat.stopping,
        "attached": seat.attached,
        "by": seat.by,
        "holder": dataclasses.asdict(seat.holder),
        "spec": document_of(spec),
    }


def decode(document: dict[str, Any]) -> Seat:
    """The seat in a JSON document. Raises KeyError, TypeError or ValueError on anything else."""
    spec = spec_of(document["spec"])
    return Seat(
        instance=InstanceId(document["instance"]),
        spec=spec,
        ports=dict(document["ports"]),
        mesh=dict(document["mesh"]),
        outbound=dict(document["outbound"]),
        created=float(document["created"]),
        module=Occupant(**document.get("module", {})),
        sidecar=Occupant(**document.get("sidecar", {})),
        restarts=int(document["restarts"]),
        ready=bool(document["ready"]),
        since=float(document["since"]),
        stopping=bool(document["stopping"]),
        attached=bool(document["attached"]),
        by=str(document.get("by", "")),
        holder=Occupant(**document.get("holder", {})),
    )
